"""What the engine must know of a network that transformers computes and we do not describe: plain data, made by running
the network once on tensors without memory (loading/foreign), read by planning before a byte is loaded.

Knows neither torch nor transformers. Invariant: `calls` are the attention calls of one forward pass, in order; call i
is layer i of the KV cache. Called by: planning, loading, layers, worker.
"""

from dataclasses import dataclass

from vllm.protocol.kv import FullKV, KVKind, SlidingKV


@dataclass(frozen=True, slots=True)
class ForeignAttention:
    """One attention call of the forward pass: softmax(softcap(scale * q k^T)) v, perhaps with a window and sinks."""

    module: str
    """Path of the module that calls."""
    heads: int
    kv_heads: int
    dim: int
    """Size of a query or key head."""
    v_dim: int
    """Size of a value head."""
    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    @property
    def kv_kind(self) -> KVKind:
        """What this call keeps per token."""
        if self.window is None:
            return FullKV(self.kv_heads, self.dim, self.v_dim)
        return SlidingKV(self.kv_heads, self.dim, self.v_dim, self.window)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A whole network of transformers."""

    architecture: str
    """Name of the class that is built."""
    config: str
    """config.json, with the user's overrides, as JSON: workers build the same network from it."""
    trust_remote_code: bool
    hidden: int
    vocab: int
    max_positions: int
    num_parameters: int
    """Elements of all parameters, tied ones once."""
    widest: int
    """Most elements per token that one layer's intermediate results take."""
    calls: tuple[ForeignAttention, ...]
    bare_linears: frozenset[str] = frozenset()
    """Linear maps whose weight somebody reads past the map itself: they keep it as it is. All others may be packed."""

    def kv_kinds(self) -> list[KVKind]:
        """One KV kind per attention call, in order."""
        return [call.kv_kind for call in self.calls]
