"""Mistral: [TOOL_CALLS]NAME[ARGS]{...}, in older models [TOOL_CALLS] and a JSON list; [THINK] thoughts [/THINK]."""

import random
import string

from vllm.formats.format import Format, Shape, Span
from vllm.formats.json_calls import JsonCalls
from vllm.formats.named_calls import NamedCalls

NAMES = ("mistral",)
_BEGIN = "[TOOL_CALLS]"
LIST = JsonCalls(_BEGIN, shape=Shape('{"name": "{name}", "arguments": ', "}", f"{_BEGIN}[", "]", ", "))
CALLS = NamedCalls(
    _BEGIN, "", "", ("[ARGS]",), (), Shape(f"{_BEGIN}{{name}}[ARGS]", ""), id_mark="[CALL_ID]", or_json=LIST
)


def _id(name: str, index: int) -> str:
    """Nine letters and digits: the templates refuse others."""
    return "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=9))


FORMATS = {"mistral": Format(Span("[THINK]", "[/THINK]"), CALLS, new_id=_id, signs=(_BEGIN,))}
