"""Facade: keeps `from vllm.entrypoints.launcher import serve_http` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"serve_http": "vllm.entrypoints.odds"})
