"""Kimi K2: a section of calls, each functions.NAME:INDEX (its id too), a mark and JSON."""

from vllm.formats.format import Format, Shape
from vllm.formats.hermes import THINK
from vllm.formats.named_calls import NamedCalls

NAMES = ("kimi_k2",)
_BEGIN, _END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _ARGUMENTS, _CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
CALLS = NamedCalls(
    _BEGIN,
    _END,
    _CALL,
    (_ARGUMENTS,),
    (_CALL_END,),
    Shape(f"{_CALL}functions.{{name}}:{{index}}{_ARGUMENTS}", _CALL_END, _BEGIN, _END),
    has_id=True,
)
FORMATS = {"kimi_k2": Format(THINK, CALLS, signs=(_BEGIN,))}
