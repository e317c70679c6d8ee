"""From StructuredOutputsParams to a Source: the text of a grammar and its kind, checked against the caps.

Does not know: llguidance, tokenizers, torch. Invariants: no work here grows faster than its input; every refusal names
the field, the cap and what was given. Called by: host.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from vllm.errors import ValidationError
from vllm.features.structured_output.tags import Literal, tags_to_lark
from vllm.sampling_params import StructuredOutputsParams

MAX_BYTES = 65_536
MAX_DEPTH = 64
MAX_PROPERTIES = 500
MAX_ENUM = 10_000
MAX_MULTIPLE = 10_000
_WHITESPACE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Source:
    """A grammar in one of llguidance's languages: json, regex, lark, or gbnf."""

    kind: str
    text: str


def source_of(params: StructuredOutputsParams, literal: Literal = json.dumps) -> Source:
    """The constraint as a Source. Raises ValidationError naming the cap that it breaks."""
    kind = params.kind
    field = f"structured_outputs.{kind}"
    if kind == "json":
        return json_source(_schema(field, params.json), params, field)
    if kind == "json_object":
        return json_source({"type": "object"}, params, field)
    if kind == "choice":
        assert params.choice is not None
        _check_count(field, len(params.choice), MAX_ENUM, "choices")
        return _sized(field, Source("lark", "start: " + " | ".join(literal(one) for one in params.choice)))
    text = getattr(params, kind)
    if kind == "structural_tag":
        tag = _loaded(field, text)
        check_size(field, json.dumps(tag))
        return _sized(field, Source("lark", tags_to_lark(tag, literal, schema_text)), 4)
    if not isinstance(text, str) or not text.strip():
        raise ValidationError.of(field, text, "a non-empty string")
    if kind == "grammar":
        is_ours = text.lstrip().startswith("%llguidance")
        return _sized(field, Source("gbnf" if "::=" in text and not is_ours else "lark", text), 4 if is_ours else 1)
    return _sized(field, Source(kind, text))


def json_source(schema: Any, params: StructuredOutputsParams | None = None, field: str = "schema") -> Source:
    """A JSON schema as a Source."""
    return _sized(field, Source("json", schema_text(schema, params, field)), 2)


def schema_text(schema: Any, params: StructuredOutputsParams | None = None, field: str = "schema") -> str:
    """A JSON schema as llguidance reads it, with our rules for white space. Raises ValidationError."""
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise ValidationError.of(field, schema, "a JSON schema: an object")
    check_schema(field, schema)
    options: dict[str, Any] = {"coerce_one_of": True, **_WHITESPACE}
    made = dict(schema)
    if params is not None and params.whitespace_pattern:
        options = {"coerce_one_of": True, "whitespace_pattern": params.whitespace_pattern}
    if params is not None and params.disable_additional_properties:
        made = _closed(made)
    return json.dumps({**made, "x-guidance": options})


def check_schema(field: str, schema: Any) -> None:
    """Depth, properties, enum values and multiples within the caps. Raises ValidationError."""
    num_properties = num_values = 0
    for depth, node in _walk(schema):
        if depth > MAX_DEPTH:
            raise _too_much(field, f"deeper than {MAX_DEPTH} levels", "schema depth", MAX_DEPTH)
        if isinstance(node, Mapping):
            for name in ("properties", "patternProperties"):
                if isinstance(node.get(name), Mapping):
                    num_properties += len(node[name])
            if isinstance(node.get("enum"), list):
                num_values += len(node["enum"])
            if "multipleOf" in node:
                _check_multiple(field, node["multipleOf"])
    _check_count(field, num_properties, MAX_PROPERTIES, "properties")
    _check_count(field, num_values, MAX_ENUM, "enum values")
    check_size(field, json.dumps(schema))


def check_size(field: str, text: str, times: int = 1) -> None:
    """The text's bytes within the cap. Raises ValidationError."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES * times:
        raise _too_much(field, f"{size:,} bytes", "size", f"{MAX_BYTES * times:,} bytes")


def _sized(field: str, source: Source, times: int = 1) -> Source:
    check_size(field, source.text, times)
    return source


def _walk(schema: Any) -> Iterator[tuple[int, Any]]:
    """(depth, node) of everything in a schema; it ends one level behind the cap, so no depth can break us."""
    level, depth = [schema], 0
    while level and depth <= MAX_DEPTH + 1:
        below: list[Any] = []
        for node in level:
            yield depth, node
            if isinstance(node, Mapping):
                below += node.values()
            elif isinstance(node, list):
                below += node
        level = [node for node in below if isinstance(node, Mapping | list)]
        depth += 1


def _check_multiple(field: str, value: Any) -> None:
    """llguidance counts remainders: its work grows with the part of the number that 2 and 5 do not divide."""
    try:
        number = abs(Decimal(str(value)))
        digits = int(number.scaleb(-int(number.as_tuple().exponent)))
    except (InvalidOperation, ValueError, OverflowError):
        raise ValidationError.of(f"{field}: multipleOf", value, "a number") from None
    for factor in (2, 5):
        while digits and digits % factor == 0:
            digits //= factor
    if digits > MAX_MULTIPLE:
        raise _too_much(field, f"multipleOf {value}", "odd part of multipleOf", MAX_MULTIPLE)


def _check_count(field: str, count: int, most: int, what: str) -> None:
    if count > most:
        raise _too_much(field, f"{count:,} {what}", what, f"{most:,}")


def _too_much(field: str, given: str, cap: str, most: object) -> ValidationError:
    return ValidationError(f"{field} has {given}; the cap ({cap}) is {most}.", field=field)


def _schema(field: str, given: Any) -> Any:
    return _loaded(field, given) if isinstance(given, str) else given


def _loaded(field: str, given: Any) -> Any:
    """JSON from text, or as it is."""
    if not isinstance(given, str):
        return given
    check_size(field, given)
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        raise ValidationError.of(field, given[:200], "JSON") from None


def _closed(node: Any) -> Any:
    """The same schema where objects have no properties but those they name."""
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, Mapping):
        return node
    made = {key: _closed(value) for key, value in node.items()}
    if "properties" in made and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made
