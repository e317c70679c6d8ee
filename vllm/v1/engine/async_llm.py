"""Facade: keeps `from vllm.v1.engine.async_llm import AsyncLLM` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"AsyncLLM": "vllm.entrypoints.async_llm"})
