"""Seed-OSS: as Qwen3-Coder, with marks of its own."""

from dataclasses import replace

from vllm.formats.format import Format, Span
from vllm.formats.qwen3_coder import CALLS as QWEN

NAMES = ("seed_oss",)
CALLS = replace(QWEN, begin="<seed:tool_call>", end="</seed:tool_call>")
FORMATS = {"seed_oss": Format(Span("<seed:think>", "</seed:think>"), CALLS, signs=("<seed:tool_call>",))}
