"""Facade: keeps `from vllm.beam_search import BeamSearchOutput, BeamSearchSequence` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"BeamSearchOutput": "vllm.outputs", "BeamSearchSequence": "vllm.outputs"})
