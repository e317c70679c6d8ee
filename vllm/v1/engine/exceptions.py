"""Facade: keeps `from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"EngineDeadError": "vllm.errors", "EngineGenerateError": "vllm.errors"})
