"""Hermes, Qwen2.5, Qwen3 and the built-in model: <think> thoughts </think>, then text with
<tool_call> {"name": ..., "arguments": {...}} </tool_call>, one call between each pair of marks."""

from vllm.formats.format import Format, Shape, Span
from vllm.formats.json_calls import JsonCalls

NAMES = ("hermes", "qwen3_json", "qwen3")
THINK = Span("<think>", "</think>")
SHAPE = Shape('<tool_call>\n{"name": "{name}", "arguments": ', "}\n</tool_call>", separator="\n")
CALLS = JsonCalls("<tool_call>", "</tool_call>", shape=SHAPE)
FORMATS = {
    "hermes": Format(THINK, CALLS, signs=("<tool_call>",)),
    "qwen3_json": Format(THINK, CALLS),
    "qwen3": Format(THINK, CALLS),
}
