"""Facade: keeps `from vllm.benchmarks.lib.utils import redact_sensitive_namespace` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"redact_sensitive_namespace": "vllm.entrypoints.odds"})
