"""Words for the KV cache: what a layer stores (kinds), which layers share a block table (groups), and the pool's plan.

One physical pool of equal-size blocks with one id space serves every group. The layers of a kind are split into groups
that hold the same number of bytes per block; layer i of every group lives in slab i, so any group may take any free
block::

    slab 0   [block 0 | block 1 | block 2 | ... ]     layer 0 of group A, layer 0 of group B, ...
    slab 1   [block 0 | block 1 | block 2 | ... ]     layer 1 of group A, layer 1 of group B, ...

Block 0 is the null block: rows that are past their end write there and nobody reads it.
Knows nothing of torch, of sequences or of who owns which block (that is `kv/`).
"""

from dataclasses import dataclass

NULL_BLOCK = 0


@dataclass(frozen=True, slots=True)
class FullKV:
    """Keys and values of every earlier token."""

    num_kv_heads: int
    head_dim: int
    v_head_dim: int

    def elements_per_token(self) -> int:
        """Cache elements (not bytes) that one token takes in one layer."""
        return self.num_kv_heads * (self.head_dim + self.v_head_dim)

    def first_needed(self, seq_len: int) -> int:
        """The lowest token position that a query at position `seq_len` still reads."""
        return 0


@dataclass(frozen=True, slots=True)
class SlidingKV:
    """Keys and values of the last `window` tokens, the query's own included (position p reads p-window+1 .. p)."""

    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    window: int

    def elements_per_token(self) -> int:
        """Cache elements (not bytes) that one token takes in one layer."""
        return self.num_kv_heads * (self.head_dim + self.v_head_dim)

    def first_needed(self, seq_len: int) -> int:
        """The lowest token position that a query at position `seq_len` still reads."""
        return max(0, seq_len - self.window + 1)


@dataclass(frozen=True, slots=True)
class LatentKV:
    """One compressed vector per token, shared by all heads (multi-head latent attention)."""

    dim: int

    def elements_per_token(self) -> int:
        """Cache elements (not bytes) that one token takes in one layer."""
        return self.dim

    def first_needed(self, seq_len: int) -> int:
        """The lowest token position that a query at position `seq_len` still reads."""
        return 0


@dataclass(frozen=True, slots=True)
class StateKV:
    """A recurrent state of fixed size per sequence; it takes whole blocks and is reused only at saved checkpoints."""

    elements: int


@dataclass(frozen=True, slots=True)
class CrossKV:
    """Keys and values of an encoder's output, written once per sequence."""

    num_kv_heads: int
    head_dim: int
    v_head_dim: int


KVKind = FullKV | SlidingKV | LatentKV | StateKV | CrossKV


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers that share one block table. `layers[i]` lives in slab i; `block_size` is tokens per block."""

    kind: KVKind
    layers: tuple[int, ...]
    block_size: int


@dataclass(frozen=True, slots=True)
class KVPlan:
    """The whole cache: groups, pool size (the null block counted) and bytes of one block in one slab."""

    groups: tuple[KVGroup, ...]
    num_blocks: int
    num_slabs: int
    block_bytes: int
    dtype: str

    def place(self, layer: int) -> tuple[int, int]:
        """(group index, slab index) of a layer."""
        for g, group in enumerate(self.groups):
            if layer in group.layers:
                return g, group.layers.index(layer)
        raise KeyError(layer)

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole pool on one rank."""
        return self.num_blocks * self.num_slabs * self.block_bytes
