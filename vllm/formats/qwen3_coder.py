"""Qwen3-Coder, Qwen3.5, Step 3.5, MiMo: a tag for the function, one for each parameter, values on their own lines."""

from vllm.formats.format import Format
from vllm.formats.hermes import THINK
from vllm.formats.tagged_calls import TaggedCalls

NAMES = ("qwen3_coder", "qwen3_xml", "step3p5", "mimo")
CALLS = TaggedCalls(
    "<tool_call>",
    "</tool_call>",
    call=("<function=", ">"),
    call_end="</function>",
    argument=("<parameter=", ">"),
    argument_end="</parameter>",
)
FORMATS = {name: Format(THINK, CALLS) for name in NAMES}
FORMATS["qwen3_coder"] = Format(THINK, CALLS, signs=("<tool_call>", "<function=", "<parameter="))
