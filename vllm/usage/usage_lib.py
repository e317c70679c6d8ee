"""Facade: keeps `from vllm.usage.usage_lib import UsageContext` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"UsageContext": "vllm.entrypoints.odds"})
