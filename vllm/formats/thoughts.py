"""Families known by their thoughts alone, or whose calls are another family's."""

from vllm.formats.format import Format, Span
from vllm.formats.hermes import THINK

NAMES = ("nemotron_v3", "holo2", "ernie45", "hy_v3", "step3", "minimax_m3", "cohere_command3")
FORMATS = {name: Format(THINK) for name in NAMES}
FORMATS["minimax_m3"] = Format(Span("<mm:think>", "</mm:think>"))
FORMATS["cohere_command3"] = Format(Span("<|START_THINKING|>", "<|END_THINKING|>"))
