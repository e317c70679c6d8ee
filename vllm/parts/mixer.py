"""Attention as a part. What it stores in the cache follows from it (`kv_kind`)."""

from dataclasses import dataclass

from vllm.parts.basic import Norm, Rope
from vllm.protocol.kv import FullKV, KVKind, SlidingKV


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, key/value heads (a divisor of them) and their size."""

    num: int
    num_kv: int
    dim: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Causal self-attention with grouped queries: softmax(scale * q k^T, softcapped) v.

    `window`: a query sees the last `window` tokens, itself included; None sees all. `clip` clamps q, k and v (OLMo).
    """

    hidden: int
    heads: Heads
    scale: float
    rope: Rope | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: tuple[Norm, Norm] | None = None
    window: int | None = None
    softcap: float | None = None
    clip: float | None = None
    sinks: bool = False

    @property
    def kv_kind(self) -> KVKind:
        """What one layer of this attention keeps per token."""
        h = self.heads
        if self.window is None:
            return FullKV(h.num_kv, h.dim, h.dim)
        return SlidingKV(h.num_kv, h.dim, h.dim, self.window)
