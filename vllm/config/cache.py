"""What the user said about the KV cache. Sizes in bytes, lengths in tokens; `None` is left to planning.

Does not know: what memory there is. Callers: planning.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle

KV_DTYPES = ("auto", "float32", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2")


@dataclass(frozen=True, kw_only=True)
class CacheArgs:
    """The KV cache section."""

    block_size: int | None = knob(None, "int", "KV slots per block, in tokens", low=1, high=1024)
    gpu_memory_utilization: float = knob(
        0.92, "float", "share of the device's memory this engine may take", low=0, high=1, open_low=True
    )
    kv_cache_memory_bytes: int | None = knob(None, "int", "bytes of KV cache, instead of the share", low=1)
    kv_cache_dtype: str = knob("auto", "str", "type of keys and values in the cache", choices=KV_DTYPES)
    num_gpu_blocks_override: int | None = knob(None, "int", "blocks of KV cache, instead of either", low=1)
    enable_prefix_caching: bool = knob(True, "bool", "reuse the KV of prompts that begin alike")

    def __post_init__(self) -> None:
        settle(self)
