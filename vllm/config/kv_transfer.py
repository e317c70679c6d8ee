"""Facade: keeps `from vllm.config.kv_transfer import KVTransferConfig` alive."""

from vllm.util.facade import forward_all

__getattr__ = forward_all(__name__, "vllm.config.objects")
