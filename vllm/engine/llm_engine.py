"""Facade: keeps `from vllm.engine.llm_engine import LLMEngine` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"LLMEngine": "vllm.entrypoints.offline"})
