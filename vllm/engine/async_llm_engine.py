"""Facade: keeps `from vllm.engine.async_llm_engine import AsyncLLMEngine` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"AsyncLLMEngine": "vllm.entrypoints.async_llm"})
