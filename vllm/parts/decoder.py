"""The tree of a decoder: blocks between an embedding and a head.

The residual stream of a block, `x`, with each norm optional::

    serial    x += s * post_mixer(mixer(pre_mixer(x)));  x += s * post_ffn(ffn(pre_ffn(x)))
    post      x = post_mixer(x + s * mixer(x));          x = post_ffn(x + s * ffn(x))
    parallel  x += s * (mixer(pre_mixer(x)) + ffn(pre_ffn(x)))        (pre_ffn None: shares pre_mixer's output)
"""

from dataclasses import dataclass
from enum import Enum

from vllm.parts.basic import Norm
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention
from vllm.protocol.kv import KVKind


class Wiring(Enum):
    """How a block's pieces meet the residual stream (see the module's drawing)."""

    SERIAL = "serial"
    POST = "post"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True)
class Block:
    """One layer: a mixer (attention), a feed-forward part and up to four norms."""

    mixer: Attention
    ffn: MLP | MoE
    pre_mixer: Norm | None = None
    pre_ffn: Norm | None = None
    post_mixer: Norm | None = None
    post_ffn: Norm | None = None
    wiring: Wiring = Wiring.SERIAL
    residual_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Embedding:
    """Token table of vocab x dim, times `scale`; learned positions are added from row position + `position_offset`.

    `dim` other than the hidden size means a projection without bias follows (and one precedes the head).
    """

    vocab: int
    dim: int
    scale: float = 1.0
    positions: int = 0
    """Rows of the learned position table (offset included); 0 means none."""
    position_offset: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """Hidden states to logits: softcap(multiplier * (x W^T + b)). Tied: W is the embedding's table."""

    tied: bool
    bias: bool = False
    multiplier: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class Decoder:
    """A whole decoder-only model."""

    hidden: int
    blocks: tuple[Block, ...]
    embed: Embedding
    head: Head
    final_norm: Norm | None
    max_positions: int
    """The longest sequence the model was made for (max_position_embeddings, scaled where the config says so)."""

    @property
    def vocab(self) -> int:
        """Number of token ids."""
        return self.embed.vocab

    def kv_kinds(self) -> list[KVKind]:
        """One KV kind per layer, in order."""
        return [b.mixer.kv_kind for b in self.blocks]
