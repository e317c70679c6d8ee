"""Facade: keeps `from vllm.entrypoints.utils import with_cancellation` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"with_cancellation": "vllm.entrypoints.odds"})
