"""Families that write calls as JSON with few marks or none: Llama 3, Granite, InternLM, Phi-4-mini, Hunyuan, others."""

from vllm.formats.format import Format, Shape, Span
from vllm.formats.hermes import CALLS as HERMES
from vllm.formats.hermes import THINK
from vllm.formats.json_calls import JsonCalls

NAMES = (
    "llama3_json",
    "llama4_json",
    "granite",
    "granite4",
    "internlm",
    "phi4_mini_json",
    "hunyuan_a13b",
    "jamba",
    "xlam",
    "longcat",
)
_OBJECT, _PARAMETERS = '{"name": "{name}", "arguments": ', '{"name": "{name}", "parameters": '
LLAMA = JsonCalls(others=("<|python_tag|>",), shape=Shape(_PARAMETERS, "}", separator="; "))
GRANITE = JsonCalls("<|tool_call|>", others=("<tool_call>",), shape=Shape(_OBJECT, "}", "<|tool_call|>[", "]", ", "))
_PLUGIN = "<|action_start|><|plugin|>"
INTERNLM = JsonCalls(_PLUGIN, "<|action_end|>", shape=Shape(f"{_PLUGIN}\n{_PARAMETERS}", "}<|action_end|>"))
PHI4 = JsonCalls("functools", shape=Shape(_OBJECT, "}", "functools[", "]", ", "))
LIST = JsonCalls("<tool_calls>", "</tool_calls>", shape=Shape(_OBJECT, "}", "<tool_calls>[", "]</tool_calls>", ", "))
_LONG, _LONG_END = "<longcat_tool_call>", "</longcat_tool_call>"
LONGCAT = JsonCalls(_LONG, _LONG_END, shape=Shape(f"{_LONG}\n{_OBJECT}", f"}}\n{_LONG_END}", separator="\n"))
GRANITE_THINK = Span("Here is my thought process:", "Here is my response:")
_LLAMA_SAYS = '"parameters": dictionary of argument name'
FORMATS = {
    "llama3_json": Format(tools=LLAMA, signs=(_LLAMA_SAYS,)),
    "llama4_json": Format(tools=LLAMA),
    "granite": Format(GRANITE_THINK, GRANITE, signs=("<|tool_call|>",)),
    "granite4": Format(THINK, HERMES),
    "internlm": Format(THINK, INTERNLM, signs=("<|action_start|>",)),
    "phi4_mini_json": Format(tools=PHI4, signs=("<|tool|>",)),
    "hunyuan_a13b": Format(THINK, LIST, signs=("<tool_calls>",)),
    "jamba": Format(tools=LIST),
    "xlam": Format(tools=JsonCalls()),
    "longcat": Format(Span("<longcat_think>", "</longcat_think>"), LONGCAT, signs=("<longcat_tool_call>",)),
}
