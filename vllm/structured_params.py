"""The constraint on the form of a text: a JSON schema, a regular expression, a choice, a grammar.

Plain data, as SamplingParams, which holds it and gives it to users under its own name. What the constraint says is
read in features/structured_output; here only that there is one, and of the right type. Called by: sampling_params.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.errors import ValidationError, check_strings

MAX_JSON_DEPTH = 64
_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


@dataclass(slots=True)
class StructuredOutputsParams:
    """One constraint on the form of the text: exactly one of the first six fields is set."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise ValidationError.of("structured_outputs", given, f"given exactly one of {', '.join(_KINDS)}")
        if not isinstance(self.json, str | Mapping | None):
            raise ValidationError.of("structured_outputs.json", self.json, "a JSON schema: a string or an object")
        if self.json is not None and not isinstance(self.json, str):
            _check_depth(self.json)
        for name in ("grammar", "structural_tag", "whitespace_pattern"):
            if not isinstance(getattr(self, name), str | None):
                raise ValidationError.of(f"structured_outputs.{name}", getattr(self, name), "a string")
        for name in ("json_object", "disable_any_whitespace", "disable_additional_properties"):
            if not isinstance(getattr(self, name), bool | None):
                raise ValidationError.of(f"structured_outputs.{name}", getattr(self, name), "true or false")
        if self.regex is not None and (not isinstance(self.regex, str) or "\0" in self.regex):
            raise ValidationError.of("structured_outputs.regex", self.regex, "a string without NUL")
        if self.choice is not None:
            self.choice = check_strings("structured_outputs.choice", self.choice)
            if not self.choice:
                raise ValidationError.of("structured_outputs.choice", self.choice, "a non-empty list of strings")

    @property
    def kind(self) -> str:
        """The name of the one constraint that is set."""
        return next(name for name in _KINDS if getattr(self, name) not in (None, False))


def _check_depth(schema: Any) -> None:
    """Refuse a JSON schema nested deeper than any honest one; iterative, so depth cannot break us."""
    level = [schema]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        ]
        if not level:
            return
    raise ValidationError.of("structured_outputs.json", "a deeper schema", f"nested at most {MAX_JSON_DEPTH} levels")
