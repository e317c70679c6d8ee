"""Facade: keeps names of vLLM's vllm.v1.sample.logits_processor alive."""

from vllm.util.facade import forward

_NAMES = ("AdapterLogitsProcessor", "BatchUpdate", "LogitsProcessor", "MoveDirectionality", "RequestLogitsProcessor")
__getattr__ = forward(__name__, dict.fromkeys(_NAMES, "vllm.sampling.custom"))
