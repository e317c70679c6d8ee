"""DeepSeek V3, V3.1 and R1: a block of calls, each a name, a mark and JSON; V3.2: tags for arguments (DSML)."""

from vllm.formats.format import Format, Shape, Span
from vllm.formats.hermes import THINK
from vllm.formats.named_calls import NamedCalls
from vllm.formats.tagged_calls import TaggedCalls

NAMES = ("deepseek_r1", "deepseek_v3", "deepseek_v31", "deepseek_v32")
_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _SEP, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
V3 = NamedCalls(
    _BEGIN,
    _END,
    f"{_CALL}function{_SEP}",
    ("\n```json\n", "\n```json"),
    (f"```{_CALL_END}", _CALL_END),
    Shape(f"{_CALL}function{_SEP}{{name}}\n```json\n", f"\n```{_CALL_END}", _BEGIN, _END, "\n"),
)
V31 = NamedCalls(_BEGIN, _END, _CALL, (_SEP,), (_CALL_END,), Shape(f"{_CALL}{{name}}{_SEP}", _CALL_END, _BEGIN, _END))
V32 = TaggedCalls(
    "<｜DSML｜function_calls>",
    "</｜DSML｜function_calls>",
    call=('<｜DSML｜invoke name="', '">'),
    call_end="</｜DSML｜invoke>",
    argument=('<｜DSML｜parameter name="', '">'),
    argument_end="</｜DSML｜parameter>",
    as_json='" string="false',
    line_breaks=False,
)
FORMATS = {
    "deepseek_r1": Format(Span("<think>", "</think>", is_open=True), V3),
    "deepseek_v3": Format(THINK, V3, signs=(_BEGIN, "```json")),
    "deepseek_v31": Format(THINK, V31, signs=(_BEGIN,)),
    "deepseek_v32": Format(THINK, V32, signs=("<｜DSML｜",)),
}
