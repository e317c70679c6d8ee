"""Facade: keeps `from vllm.sequence import Logprob, RequestMetrics` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"Logprob": "vllm.outputs", "RequestMetrics": "vllm.outputs"})
