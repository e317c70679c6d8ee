"""Facade: keeps `from vllm.engine.arg_utils import EngineArgs, AsyncEngineArgs` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"EngineArgs": "vllm.config.args", "AsyncEngineArgs": "vllm.config.args"})
