"""Facade: keeps `from vllm.config.pooler import PoolerConfig` alive."""

from vllm.util.facade import forward_all

__getattr__ = forward_all(__name__, "vllm.config.objects")
