"""Public names of the engine, resolved on first use.

For: `from vllm import LLM, SamplingParams` in a few milliseconds. Does not know: what the names do.
Invariant: importing this package imports no room, so neither torch nor transformers comes along.
Called by: users. Rooms import each other by full path, never through here.
"""

from importlib import import_module
from typing import Any

from vllm.version import __version__, __version_tuple__

_HOME = {
    "LLM": "vllm.entrypoints.llm",
    "SamplingParams": "vllm.sampling_params",
    "EngineArgs": "vllm.config.args",
    "CompletionOutput": "vllm.outputs",
    "RequestOutput": "vllm.outputs",
    "PromptType": "vllm.inputs",
    "TextPrompt": "vllm.inputs",
    "TokensPrompt": "vllm.inputs",
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
