"""Blocks: how a mixer and a feed-forward part meet the residual stream.

A block takes (x, delta) and gives (x, delta): the stream is x + delta, and the addition is left to the next norm, which
does both in one pass. delta None is zero. With `only` it gives the streams of these tokens alone: behind the last block
nobody reads those of others. Drawings of the wirings: `parts/decoder.py`. Called by: build.
"""

import torch

from vllm.layers.attention import AttentionLayer
from vllm.layers.context import Context
from vllm.layers.mlp import MLPLayer, MoELayer
from vllm.layers.norm import NormLayer
from vllm.ops.batch import Batch
from vllm.ops.fold import Folded, Map
from vllm.ops.moe import Apart
from vllm.parts.decoder import Block, Wiring
from vllm.parts.ffn import MoE

Stream = tuple[torch.Tensor, torch.Tensor | Apart | None]


def _some(x: torch.Tensor, only: torch.Tensor | None) -> torch.Tensor:
    return x if only is None else x[only]


class BlockLayer:
    """The pieces of a block; the wirings below connect them."""

    def __init__(self, c: Context, part: Block, layer: int) -> None:
        name = f"layers.{layer}"
        self.pre_mixer = NormLayer(c, part.pre_mixer, f"{name}.pre_mixer")
        self.post_mixer = NormLayer(c, part.post_mixer, f"{name}.post_mixer")
        self.pre_ffn = NormLayer(c, part.pre_ffn, f"{name}.pre_ffn")
        self.post_ffn = NormLayer(c, part.post_ffn, f"{name}.post_ffn")
        self.mixer = AttentionLayer(c, part.mixer, layer, f"{name}.mixer")
        ffn = part.ffn
        self.ffn = MoELayer(c, ffn, f"{name}.ffn") if isinstance(ffn, MoE) else MLPLayer(c, ffn, f"{name}.ffn")
        self.scale, self.wiring = part.residual_scale, part.wiring
        self.shares_norm = part.pre_ffn is None
        reads, also = self.mixer.intake, self.ffn.intake
        if part.wiring is not Wiring.PARALLEL or not self.shares_norm or (reads is not None and reads.like(also)):
            self.pre_mixer.feed(reads)
        self.pre_ffn.feed(also)
        self.folds = (
            part.wiring is Wiring.SERIAL
            and part.post_mixer is part.post_ffn is None
            and self.scale == 1.0
            and self.pre_mixer.folds
            and self.pre_ffn.folds
            and self.mixer.folds
            and self.ffn.folds
        )
        """`folded` may be used."""

    def hand_to(self, norm: NormLayer) -> None:
        """`norm` is the next to take the stream: it may add the results of experts on its way."""
        is_last = self.wiring is Wiring.SERIAL and self.scale == 1.0 and self.post_ffn.is_identity
        if isinstance(self.ffn, MoELayer):
            self.ffn.parts = self.ffn.may_part and is_last and norm.joins

    def maps(self) -> list[Map]:
        """The maps of a block that folds."""
        return [*self.mixer.maps(), *self.ffn.maps()]

    @property
    def shrinks(self) -> bool:
        """All maps read e4m3, in groups that fill their rows: who makes their inputs may make them so."""
        maps = self.maps()
        fits = all(small and outputs % 256 == inputs % 128 == 0 for outputs, inputs, _, small in maps)
        return fits and len(maps) == 4 and self.mixer.shrinks()

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """x times the block's residual scale."""
        return x if self.scale == 1.0 else x * self.scale


class SerialBlock(BlockLayer):
    """x += s * post_mixer(mixer(pre_mixer(x))); x += s * post_ffn(ffn(pre_ffn(x)))"""

    def __call__(
        self, x: torch.Tensor, delta: torch.Tensor | None, batch: Batch, only: torch.Tensor | None = None
    ) -> Stream:
        x, h = self.pre_mixer.add(x, delta)
        delta = self.scaled(self.post_mixer(self.mixer(h, batch, only)))
        x, h = self.pre_ffn.add(_some(x, only), delta)
        return x, self.scaled(self.post_ffn(self.ffn(h)))

    def folded(self, f: Folded, batch: Batch, following: torch.Tensor) -> Folded:
        """The same for few tokens, one per sequence, norms folded into maps; `following` is the next one's weight."""
        assert self.pre_ffn.weight is not None
        f = self.mixer.folded(f, self.pre_mixer.eps, batch, self.pre_ffn.weight)
        return self.ffn.folded(f, self.pre_ffn.eps, following)


class PostBlock(BlockLayer):
    """x = post_mixer(x + s * mixer(x)); x = post_ffn(x + s * ffn(x))"""

    def __call__(
        self, x: torch.Tensor, delta: torch.Tensor | None, batch: Batch, only: torch.Tensor | None = None
    ) -> Stream:
        x = x if delta is None else x + delta
        _, x = self.post_mixer.add(_some(x, only), self.scaled(self.mixer(x, batch, only)))
        _, x = self.post_ffn.add(x, self.scaled(self.ffn(x)))
        return x, None


class ParallelBlock(BlockLayer):
    """x += s * (mixer(pre_mixer(x)) + ffn(pre_ffn(x)))"""

    def __call__(
        self, x: torch.Tensor, delta: torch.Tensor | None, batch: Batch, only: torch.Tensor | None = None
    ) -> Stream:
        x, h = self.pre_mixer.add(x, delta)
        g = h if self.shares_norm else self.pre_ffn(x)
        if isinstance(g, torch.Tensor):
            return _some(x, only), self.scaled(self.mixer(h, batch, only) + self.ffn(_some(g, only)))
        return _some(x, only), _some(self.scaled(self.mixer(h, batch) + self.ffn(g)), only)


_WIRINGS = {Wiring.SERIAL: SerialBlock, Wiring.POST: PostBlock, Wiring.PARALLEL: ParallelBlock}


def make_block(c: Context, part: Block, layer: int) -> SerialBlock | PostBlock | ParallelBlock:
    """The module of a block."""
    return _WIRINGS[part.wiring](c, part, layer)
