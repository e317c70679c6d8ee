"""A description, its tensors and a place in the cache become a model that runs.

With a pipeline every stage builds its own run of blocks; the first holds the embedding, the last the final norm and
head (and a copy of the token table when they are tied). Called by: worker.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vllm.layers.block import SerialBlock, make_block
from vllm.layers.context import Context
from vllm.layers.embedding import EmbeddingLayer, HeadLayer
from vllm.layers.norm import NormLayer
from vllm.layers.rope import RopeTables
from vllm.ops.batch import Batch
from vllm.ops.table import Kernels
from vllm.parallel.mesh import Mesh
from vllm.parts.decoder import Decoder
from vllm.parts.tensors import stage_layers
from vllm.platforms.base import platform_of
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.util.catalog import Catalogue


class Model:
    """The forward pass of one rank.

    `model(batch)` gives hidden states [T, E] after the final norm on the last pipeline stage, `model(batch, only=at)`
    those of the tokens `at` [N] alone, for less work. Other stages give the stream [T, E] that the next one takes as
    `hidden`.
    """

    def __init__(self, c: Context, decoder: Decoder) -> None:
        pp = c.mesh.pp
        self.hidden_size, self.vocab, self.dtype, self._ops = decoder.hidden, decoder.vocab, c.dtype, c.ops
        self._embed = EmbeddingLayer(c, decoder.embed, decoder.head.tied and pp.is_last) if pp.is_first else None
        mine = stage_layers(len(decoder.blocks), pp.size, pp.rank)
        self._blocks = [make_block(c, decoder.blocks[i], i) for i in mine]
        self._norm = NormLayer(c, decoder.final_norm, "norm") if pp.is_last else None
        packed = self._embed.packed if self._embed is not None else None
        norms = [b.pre_mixer for b in self._blocks[1:]] + ([self._norm] if self._norm is not None else [])
        for block, norm in zip(self._blocks, norms, strict=False):
            block.hand_to(norm)
        self._head = HeadLayer(c, decoder, packed) if pp.is_last else None
        self._few = c.ops.helper("fold", "most")(self._blocks[0].maps()) if self._folds() else 0
        """Most tokens of a step in which norms are folded into the maps around them."""
        self._small = self._few > 0 and all(b.shrinks for b in self._blocks)
        """The stream then goes from map to map in e4m3."""
        if self._few and not self._small and any(small for b in self._blocks for *_, small in b.maps()):
            self._few = min(self._few, 8)  # why: each map shrinks all of its input for itself

    def _folds(self) -> bool:
        return self._norm is not None and self._norm.folds and all(b.folds for b in self._blocks)

    def __call__(
        self, batch: Batch, hidden: torch.Tensor | None = None, only: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run this rank's blocks. `hidden` is the previous stage's stream; None on the first stage."""
        if batch.num_tokens <= self._few and batch.max_query_len == 1:
            folded = self._folded(batch)
            return folded if only is None else folded[only]
        if hidden is None:
            assert self._embed is not None, "only the first stage starts from tokens"
            hidden = self._embed(batch)
        x, delta = hidden, None
        for block in self._blocks[:-1]:
            x, delta = block(x, delta, batch)
        x, delta = self._blocks[-1](x, delta, batch, only if self._norm is not None else None)
        if self._norm is not None:
            return self._norm.add(x, delta)[1]
        return x if delta is None else x + delta

    def _folded(self, batch: Batch) -> torch.Tensor:
        assert self._norm is not None and self._embed is not None, "norms fold where there is one stage"
        norms = [b.pre_mixer.weight for b in self._blocks] + [self._norm.weight]
        if self._embed.plain is not None:
            f = self._ops.fold(self._embed.plain, norms[0], self._small, batch.token_ids)
        else:
            f = self._ops.fold(self._embed(batch), norms[0], self._small)
        for block, following in zip(self._blocks, norms[1:], strict=True):
            assert isinstance(block, SerialBlock) and following is not None
            f = block.folded(f, batch, following)
        return self._norm(f.hidden)

    def logits(self, hidden: torch.Tensor, wide: bool = True) -> torch.Tensor:
        """[N, E] -> [N, V] float32; not `wide`: in whatever dtype holds the same. Only on the last stage."""
        assert self._head is not None, "only the last stage has a head"
        return self._head(hidden, wide)


def build(
    decoder: Decoder,
    weights: dict[str, torch.Tensor],
    worker_plan: WorkerPlan,
    kv_plan: KVPlan,
    slabs: list[torch.Tensor],
    ops: Kernels,
    mesh: Mesh | None = None,
) -> Model:
    """Make the model of this rank. `weights` are its shards by name (parts/tensors.py); the dict is emptied.

    `slabs` are uint8 tensors [num_blocks, block_bytes], one per slab of the plan. Raises KeyError for a missing tensor
    and ValueError for tensors nobody took.
    """
    device, dtype = torch.device(worker_plan.device), dtype_of(worker_plan.dtype)
    max_len = worker_plan.max_model_len
    mesh = mesh or Mesh()
    c = Context(
        ops, mesh, weights, kv_plan, slabs, RopeTables(max_len, device, ops), device, dtype, dtype_of(kv_plan.dtype)
    )
    if worker_plan.quantization != "none":
        method = Catalogue("vllm.quantization").load(worker_plan.quantization)
        c.linear, c.comes_packed, c.weight_block = method.OP, method.AT_LOAD, worker_plan.weight_block
    model = Model(c, decoder)
    if weights:
        raise ValueError(f"tensors that no layer of this rank takes: {', '.join(sorted(weights)[:5])}")
    return model


def make_slabs(kv_plan: KVPlan, device: torch.device) -> list[torch.Tensor]:
    """The cache's memory: one uint8 tensor [num_blocks, block_bytes] per slab, zeroed (never NaN)."""
    shape = (kv_plan.num_blocks, kv_plan.block_bytes)
    reserve = platform_of(device).reserve
    return [reserve(shape, torch.uint8, device.index or 0) for _ in range(kv_plan.num_slabs)]


DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a plan's word."""
    return DTYPES[name]
