"""The grammar of an answer that is tool calls, or text with tool calls in it, from a format's Shape (lark).

Does not know: tokenizers (`literal` writes literal text, `schema` writes a JSON schema), how grammars are used.
Called by: entrypoints.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm.formats.format import Shape, Tool

Literal = Callable[[str], str]
SchemaText = Callable[[Any], str]
_ANY = r"/(.|\n)*/"


class Grammar:
    """Rules in the making."""

    def __init__(self, literal: Literal, schema: SchemaText) -> None:
        self._literal, self._schema = literal, schema
        self._rules: list[str] = [f"TEXT: {_ANY}"]

    def rule(self, body: str, flags: str = "") -> str:
        """A new rule, by its name."""
        name = f"r_{len(self._rules)}"
        self._rules.append(f"{name}{flags}: {body}")
        return name

    def lit(self, text: str) -> str:
        """A literal; nothing for no text."""
        return self._literal(text) if text else ""

    def json(self, schema: Any) -> str:
        """A value of a schema."""
        return self.rule(f"%json {self._schema(schema)}")

    def text(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules])

    def until(self, mark: str) -> str:
        """Any text up to and with a mark."""
        made = self.lit(mark)
        return f"TEXT {made}" if made.startswith("<[") else self.rule(f"{_ANY} {made}", "[lazy]")


def calls(grammar: Grammar, shape: Shape, tools: Sequence[Tool], many: bool) -> str:
    """A rule: one call of these tools, or one and more."""
    lit = grammar.lit
    call = grammar.rule(" | ".join(_call(grammar, shape, tool, is_bound=True) for tool in tools))
    more = f"({lit(shape.separator)} {call})*" if many else ""
    return grammar.rule(f"{lit(shape.begin)} {call} {more} {lit(shape.end)}")


def text_with_calls(grammar: Grammar, shape: Shape, tools: Sequence[Tool], mark: str, many: bool) -> str:
    """A rule: text, and behind each `mark` (how calls begin) calls of these tools; strict ones follow their schema."""
    lit, opening = grammar.lit, shape.begin or shape.head
    assert opening.startswith(mark)
    call = grammar.rule(" | ".join(_call(grammar, shape, tool, tool.is_strict) for tool in tools))
    if shape.begin:
        more = f"({lit(shape.separator)} {call})*" if many else ""
        inside = f"{lit(shape.begin[len(mark) :])} {call} {more} {lit(shape.end)}"
    else:
        behind = [_call(grammar, shape, tool, tool.is_strict, skip=len(mark)) for tool in tools]
        inside = grammar.rule(" | ".join(behind))
    block = grammar.rule(f"{grammar.until(mark)} {inside}")
    return grammar.rule(f"{block}{'*' if many else '?'} TEXT")


def _call(grammar: Grammar, shape: Shape, tool: Tool, is_bound: bool, skip: int = 0) -> str:
    """A rule for one call of a tool, without the first `skip` characters of its head."""
    head = shape.head.replace("{name}", json.dumps(tool.name)[1:-1] if shape.arguments == "json" else tool.name)[skip:]
    schema = tool.parameters if is_bound else {}
    if "properties" in schema:
        schema = {"additionalProperties": False, **schema}
    body = grammar.json({"type": "object", **schema}) if shape.arguments == "json" else _each(grammar, shape, schema)
    before, index, behind = head.partition("{index}")
    opening = f"{grammar.lit(before)} /[0-9]/ {grammar.lit(behind)}" if index else grammar.lit(head)
    return grammar.rule(f"{opening} {body} {grammar.lit(shape.tail)}")


def _each(grammar: Grammar, shape: Shape, schema: Mapping[str, Any]) -> str:
    """Arguments one by one, in the schema's order; those that are not required may be left out."""
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required") or ()
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    items = []
    for name, inner in known.items():
        one = _argument(grammar, shape, name, inner, shared)
        items.append((one, name in required))
    if not shape.between:
        return grammar.rule(" ".join(one if needed else f"{one}?" for one, needed in items) or '""')
    return _separated(grammar, items, grammar.lit(shape.between))


def _separated(grammar: Grammar, items: list[tuple[str, bool]], between: str) -> str:
    """Items in order with something between those that are there."""
    # from the last to the first: what may follow an item that is there, and what may stand if none was yet
    after, first = '""', '""'
    for one, needed in reversed(items):
        here, begun = grammar.rule(f"{between} {one} {after}"), grammar.rule(f"{one} {after}")
        after = here if needed else grammar.rule(f"{here} | {after}")
        first = begun if needed else grammar.rule(f"{begun} | {first}")
    return first


def _argument(grammar: Grammar, shape: Shape, name: str, schema: Any, shared: Mapping[str, Any]) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    said = shape.arguments.replace("{is_string}", "true" if kind == "string" else "false")
    before, _, behind = said.replace("{name}", name).partition("{value}")
    if shape.raw_strings and kind == "string" and "enum" in schema:
        value = grammar.rule(" | ".join(grammar.lit(str(one)) for one in schema["enum"]))
    elif shape.raw_strings and kind == "string":
        return grammar.rule(f"{grammar.lit(before)} {grammar.until(behind)}")
    else:
        value = grammar.json({**schema, **shared} if isinstance(schema, Mapping) else schema)
    return grammar.rule(f"{grammar.lit(before)} {value} {grammar.lit(behind)}")
