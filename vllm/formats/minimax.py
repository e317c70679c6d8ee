"""MiniMax M2: <invoke name="f"> with <parameter name="k">value</parameter>; its template opens the thought."""

from vllm.formats.format import Format, Span
from vllm.formats.tagged_calls import TaggedCalls

NAMES = ("minimax_m2",)
CALLS = TaggedCalls(
    "<minimax:tool_call>",
    "</minimax:tool_call>",
    call=('<invoke name="', '">'),
    call_end="</invoke>",
    argument=('<parameter name="', '">'),
    argument_end="</parameter>",
    line_breaks=False,
)
THINK = Span("<think>", "</think>", is_open=True)
FORMATS = {"minimax_m2": Format(THINK, CALLS, signs=("<minimax:tool_call>",))}
