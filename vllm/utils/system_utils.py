"""Facade: keeps `from vllm.utils.system_utils import set_ulimit` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"set_ulimit": "vllm.entrypoints.odds"})
