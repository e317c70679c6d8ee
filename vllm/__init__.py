"""Public names of the engine, resolved on first use.

For: `from vllm import LLM, SamplingParams` in a few milliseconds. Does not know: what the names do.
Invariant: importing this package imports no room, so neither torch nor transformers comes along.
For type checkers the same names stand in __init__.pyi.
Called by: users. Rooms import each other by full path, never through here.
"""

from importlib import import_module
from typing import Any

from vllm.version import __version__, __version_tuple__

_HOME = {
    "LLM": "vllm.entrypoints.llm",
    "LLMEngine": "vllm.entrypoints.offline",
    "AsyncLLMEngine": "vllm.entrypoints.async_llm",
    "AsyncEngineArgs": "vllm.config.args",
    "EngineArgs": "vllm.config.args",
    "ModelRegistry": "vllm.entrypoints.registry",
    "PromptType": "vllm.inputs",
    "TextPrompt": "vllm.inputs",
    "TokensPrompt": "vllm.inputs",
    "ClassificationOutput": "vllm.outputs",
    "ClassificationRequestOutput": "vllm.outputs",
    "CompletionOutput": "vllm.outputs",
    "EmbeddingOutput": "vllm.outputs",
    "EmbeddingRequestOutput": "vllm.outputs",
    "PoolingOutput": "vllm.outputs",
    "PoolingRequestOutput": "vllm.outputs",
    "RequestOutput": "vllm.outputs",
    "ScoringOutput": "vllm.outputs",
    "ScoringRequestOutput": "vllm.outputs",
    "PoolingParams": "vllm.pooling_params",
    "SamplingParams": "vllm.sampling_params",
}

__all__ = ["__version__", "__version_tuple__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'vllm' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
