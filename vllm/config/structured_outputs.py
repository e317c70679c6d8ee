"""Facade: keeps `from vllm.config.structured_outputs import StructuredOutputsConfig` alive."""

from vllm.util.facade import forward_all

__getattr__ = forward_all(__name__, "vllm.config.objects")
