"""Structural tags: free text in which marked pieces follow a schema, as a lark grammar.

    {"type": "structural_tag", "structures": [{"begin", "schema", "end"}], "triggers": [...]}
    {"type": "structural_tag", "format": {"type": "triggered_tags" | "tag" | "sequence" | ...}}

Does not know: tokenizers, caps. Called by: source.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vllm.errors import ValidationError

Literal = Callable[[str], str]
"""A literal text as lark: strings, and special tokens by number."""
_FIELD = "structured_outputs.structural_tag"
_ANY = r"/(.|\n)*/"
_MAX_DEPTH = 16


class Lark:
    """Writes rules; `schema` makes the text of a JSON schema, with its checks."""

    def __init__(self, literal: Literal, schema: Callable[[Any], str]) -> None:
        self.literal, self._schema = literal, schema
        self._rules: list[str] = [f"TEXT: {_ANY}"]

    def rule(self, body: str, name: str = "r", flags: str = "") -> str:
        """A new rule, by its name."""
        made = f"{name}_{len(self._rules)}"
        self._rules.append(f"{made}{flags}: {body}")
        return made

    def json(self, schema: Any) -> str:
        """A rule for a value of a schema."""
        return self.rule(f"%json {self._schema(schema)}")

    def until(self, text: str) -> str:
        """A rule for any text up to and with a literal."""
        mark = self.literal(text)
        if not text:
            return "TEXT"
        return f"TEXT {mark}" if mark.startswith("<[") else self.rule(f"{_ANY} {mark}", flags="[lazy]")

    def text(self, start: str) -> str:
        """The grammar."""
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules])


def tags_to_lark(tag: Any, literal: Literal, schema: Callable[[Any], str]) -> str:
    """The grammar of a structural tag. Raises ValidationError naming what cannot be read."""
    if not isinstance(tag, Mapping):
        raise ValidationError.of(_FIELD, tag, "a JSON object")
    lark = Lark(literal, schema)
    if "format" in tag:
        return lark.text(_format(lark, tag["format"], 0))
    structures, triggers = tag.get("structures"), tag.get("triggers")
    if not isinstance(structures, list) or not structures or not isinstance(triggers, list):
        raise ValidationError.of(_FIELD, tag, "an object with format, or with structures and triggers")
    tags = [
        {
            "begin": _text(one, "begin"),
            "content": {"type": "json_schema", "json_schema": one.get("schema", True)},
            "end": _text(one, "end"),
        }
        for one in structures
    ]
    return lark.text(_triggered(lark, {"triggers": triggers, "tags": tags}, 0))


def _text(given: Any, name: str) -> str:
    value = given.get(name) if isinstance(given, Mapping) else None
    if not isinstance(value, str):
        raise ValidationError.of(f"{_FIELD}: {name}", value, "a string")
    return value


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if not isinstance(value, list) or not value:
        raise ValidationError.of(f"{_FIELD}: {name}", value, "a non-empty list")
    return value


def _format(lark: Lark, given: Any, depth: int) -> str:
    """A rule body for one format."""
    kind = given.get("type") if isinstance(given, Mapping) else None
    if depth > _MAX_DEPTH:
        raise ValidationError(f"{_FIELD} is nested deeper than {_MAX_DEPTH} formats.", field=_FIELD)
    writer = _WRITERS.get(str(kind))
    if writer is None:
        raise ValidationError.of(f"{_FIELD}: format.type", kind, f"one of {', '.join(_WRITERS)}")
    return writer(lark, given, depth)


def _const(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    return lark.literal(_text(given, "value"))


def _json(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    return lark.json(given.get("json_schema", True))


def _any(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    return "TEXT"


def _regex(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    pattern = _text(given, "pattern").replace("\\/", "/").replace("/", "\\/")
    if "\n" in pattern:
        raise ValidationError.of(f"{_FIELD}: pattern", pattern, "one line; write \\n for a line break")
    return lark.rule(f"/{pattern}/")


def _sequence(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    return lark.rule(" ".join(_format(lark, one, depth + 1) for one in _list(given, "elements")))


def _or(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    return lark.rule(" | ".join(_format(lark, one, depth + 1) for one in _list(given, "elements")))


def _tag(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    return lark.rule(f"{lark.literal(_text(given, 'begin'))} {_rest(lark, given, depth)}")


def _rest(lark: Lark, given: Any, depth: int) -> str:
    """A tag behind its begin."""
    content, end = given.get("content"), _text(given, "end")
    if isinstance(content, Mapping) and content.get("type") == "any_text":
        return lark.until(end)
    return f"{_format(lark, content, depth + 1)} {lark.literal(end)}"


def _triggered(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    """Free text, and from each trigger on one of the tags that begin with it."""
    triggers, rules = _list(given, "triggers"), []
    for tag in _list(given, "tags"):
        begin = _text(tag, "begin")
        trigger = next((t for t in triggers if isinstance(t, str) and t and begin.startswith(t)), None)
        if trigger is None:
            raise ValidationError.of(f"{_FIELD}: begin", begin, "a text that starts with one of the triggers")
        head = lark.literal(begin[len(trigger) :])
        rules.append(lark.rule(f"{lark.until(trigger)} {head} {_rest(lark, tag, depth)}"))
    tags = lark.rule(" | ".join(rules))
    count = "" if given.get("stop_after_first") else "+" if given.get("at_least_one") else "*"
    if given.get("stop_after_first") and not given.get("at_least_one"):
        count = "?"
    return lark.rule(f"{tags}{count}" + ("" if given.get("stop_after_first") else " TEXT"))


def _separated(lark: Lark, given: Mapping[str, Any], depth: int) -> str:
    """Tags with a separator between them."""
    tag = lark.rule(" | ".join(_tag(lark, one, depth) for one in _list(given, "tags")))
    separator = lark.literal(_text(given, "separator"))
    some = tag if given.get("stop_after_first") else lark.rule(f"{tag} ({separator} {tag})*")
    return some if given.get("at_least_one") else lark.rule(f"{some}?")


_WRITERS: dict[str, Callable[[Lark, Mapping[str, Any], int], str]] = {
    "const_string": _const,
    "json_schema": _json,
    "any_text": _any,
    "regex": _regex,
    "sequence": _sequence,
    "or": _or,
    "tag": _tag,
    "triggered_tags": _triggered,
    "tags_with_separator": _separated,
}
