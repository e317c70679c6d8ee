"""vLLM's configuration objects: named bundles of keywords, to be given where a dict of the same keys is taken.

    LLM(compilation_config=CompilationConfig(mode=0))   is   LLM(compilation_config={"mode": 0})

and what tools read of an engine's settings (`engine.vllm_config.model_config.max_model_len`). Does not know: which keys
mean something; whoever takes the bundle says so. Callers: users, through the facade modules of this room.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Settings(dict[str, Any]):
    """A dict whose keys are attributes too."""

    def __init__(self, *given: Any, **words: Any) -> None:
        super().__init__(*given, **words)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it holds {', '.join(self) or 'nothing'}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"


class VllmConfig(Settings):
    """What an engine was made from: `engine_args`, and once it runs model_config, cache_config and so on."""


class ModelConfig(Settings):
    """The model's part."""


class CacheConfig(Settings):
    """The KV cache's part."""


class SchedulerConfig(Settings):
    """The scheduler's part."""


class ParallelConfig(Settings):
    """The part of ranks and stages."""


class DeviceConfig(Settings):
    """The device's part."""


class LoadConfig(Settings):
    """The part of weight files."""


class CompilationConfig(Settings):
    """Of torch.compile and graphs; accepted and ignored, since nothing is compiled by torch.compile here."""


class PassConfig(Settings):
    """Part of a CompilationConfig."""


class AttentionConfig(Settings):
    """Of attention kernels; accepted and ignored, since planning chooses them."""


class KernelConfig(Settings):
    """Of kernels; accepted and ignored, since planning chooses them."""


class ProfilerConfig(Settings):
    """Where `start_profile` writes, and which steps it watches."""


class PoolerConfig(Settings):
    """How states become an embedding."""


class StructuredOutputsConfig(Settings):
    """Which backend compiles grammars; there is one here."""


class SpeculativeConfig(Settings):
    """Of speculation, which is not in this version and changes no token."""


class ObservabilityConfig(Settings):
    """Of traces and metrics."""


class KVTransferConfig(Settings):
    """Of KV connectors; refused where it is given."""


class KVEventsConfig(Settings):
    """Of KV events; refused where it is given."""


class LoRAConfig(Settings):
    """Of adapters; refused where it is given."""


class WeightTransferConfig(Settings):
    """Of weight transfer between processes; refused where it is given."""


class ReasoningConfig(Settings):
    """Of thinking budgets; refused where it is given."""


class CompilationMode(IntEnum):
    """vLLM's levels of compilation."""

    NONE = 0
    STOCK_TORCH_COMPILE = 1
    DYNAMO_TRACE_ONCE = 2
    VLLM_COMPILE = 3


class CUDAGraphMode(IntEnum):
    """vLLM's kinds of graphs."""

    NONE = 0
    PIECEWISE = 1
    FULL = 2
    FULL_DECODE_ONLY = 3
    FULL_AND_PIECEWISE = 4


NAMES = tuple(
    name for name, value in list(globals().items()) if isinstance(value, type) and value.__module__ == __name__
)
