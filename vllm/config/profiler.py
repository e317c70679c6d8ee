"""Facade: keeps `from vllm.config.profiler import ProfilerConfig` alive."""

from vllm.util.facade import forward_all

__getattr__ = forward_all(__name__, "vllm.config.objects")
