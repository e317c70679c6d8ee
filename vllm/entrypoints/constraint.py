"""What the text of a turn must be: what the request says about its form, and about calling tools, as one constraint.

    required, or a named tool   calls of the tools that may be called, and nothing else
    auto, a form for the text   that form, or calls
    auto, strict tools          text, and calls that follow their schemas

Does not know: HTTP, compiling. Called by: routes.
"""

import json
from dataclasses import replace

from vllm.entrypoints.turn import Turn
from vllm.errors import RefusedError
from vllm.features.structured_output.source import schema_text
from vllm.features.structured_output.tags import Literal
from vllm.formats.format import Shape
from vllm.formats.grammar import Grammar, calls, text_with_calls
from vllm.formats.json_calls import JsonCalls
from vllm.sampling_params import StructuredOutputsParams

_UNMARKED = r"/[^\[{<\s](.|\n)*/"
"""Text that cannot be taken for calls where those have no mark."""


def able_to_call(turn: Turn) -> Turn:
    """The turn, with plain JSON for calls where the model's family has no syntax of its own and must call."""
    if turn.rules.choice == "required" and turn.format.tools is None:
        return replace(turn, format=replace(turn.format, tools=JsonCalls()))
    return turn


def constrain(turn: Turn, asked: StructuredOutputsParams | None, literal: Literal) -> StructuredOutputsParams | None:
    """The constraint of a turn's text; None when it is free. Raises ValidationError, RefusedError."""
    rules, syntax = turn.rules, turn.format.tools
    is_strict = rules.choice == "auto" and any(tool.is_strict for tool in rules.tools)
    if syntax is None or not (rules.choice == "required" or is_strict or (rules.choice == "auto" and asked)):
        return asked
    grammar = Grammar(literal, lambda schema: schema_text(schema, asked, "tools: parameters"))
    shape = syntax.shape
    if rules.choice == "required":
        return StructuredOutputsParams(grammar=grammar.text(calls(grammar, shape, rules.tools, rules.has_many)))
    if asked is not None:
        form = _form(grammar, asked)
        called = calls(grammar, shape, rules.tools, rules.has_many)
        return StructuredOutputsParams(grammar=grammar.text(f"{form} | {called}"))
    mark = _mark(shape, syntax.begins)
    if mark is None:
        called = calls(grammar, shape, rules.tools, rules.has_many)
        return StructuredOutputsParams(grammar=grammar.text(f"{grammar.rule(_UNMARKED)} | {called}"))
    return StructuredOutputsParams(
        grammar=grammar.text(text_with_calls(grammar, shape, rules.tools, mark, rules.has_many))
    )


def _mark(shape: Shape, begins: tuple[str, ...]) -> str | None:
    """How calls begin; None when nothing marks it."""
    opening = shape.begin or shape.head
    return next((mark for mark in begins if opening.startswith(mark)), None)


def _form(grammar: Grammar, asked: StructuredOutputsParams) -> str:
    """A rule for the form that was asked of the text."""
    kind = asked.kind
    if kind in ("json", "json_object"):
        given = {"type": "object"} if kind == "json_object" else asked.json
        return grammar.json(json.loads(given) if isinstance(given, str) else given)
    if kind == "choice":
        return grammar.rule(" | ".join(grammar.lit(one) for one in asked.choice or ()))
    raise RefusedError(
        f"structured_outputs.{kind} cannot be combined with tools.", field="tools", remedy="Set tool_choice to 'none'."
    )
