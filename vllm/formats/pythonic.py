"""Families that write calls as Python: Llama 3.2 and 4, LFM2, OLMo 3."""

from vllm.formats.format import Format
from vllm.formats.hermes import THINK
from vllm.formats.python_calls import PythonCalls

NAMES = ("pythonic", "llama4_pythonic", "lfm2", "olmo3")
LLAMA4 = PythonCalls(others=("<|python_start|>", "<|python_tag|>"), end="<|python_end|>")
LFM2 = PythonCalls("<|tool_call_start|>", "<|tool_call_end|>")
OLMO3 = PythonCalls("<function_calls>", "</function_calls>", is_list=False)
FORMATS = {
    "pythonic": Format(tools=PythonCalls()),
    "llama4_pythonic": Format(tools=LLAMA4, signs=("<|python_start|>", "<|header_start|>")),
    "lfm2": Format(THINK, LFM2, signs=("<|tool_call_start|>",)),
    "olmo3": Format(THINK, OLMO3, signs=("<function_calls>",)),
}
