"""Self-attention with grouped queries: project, normalise and rotate heads, read the cache, project back.

Knows its part, its shard and its place in the cache; not which block wiring it stands in. Called by: block.
"""

import torch

from vllm.layers.context import Context
from vllm.layers.linear import column, row
from vllm.layers.norm import NormLayer
from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch
from vllm.ops.fold import Folded, Map
from vllm.ops.heads import HeadsShape
from vllm.ops.quantize import Quantized
from vllm.parts.mixer import Attention
from vllm.parts.tensors import Piece


def local_heads(part: Attention, size: int, rank: int) -> tuple[int, int]:
    """(query heads, key/value heads) of a rank; with more ranks than kv heads each head is held by several."""
    h = part.heads
    return Piece(h.num, h.num).shard(size, rank)[1], Piece(h.num_kv, h.num_kv).shard(size, rank)[1]


class AttentionLayer:
    """One attention part in layer `layer` of the model."""

    def __init__(self, c: Context, part: Attention, layer: int, name: str) -> None:
        tp, d = c.mesh.tp, part.heads.dim
        heads, kv_heads = local_heads(part, tp.size, tp.rank)
        self._qkv, self._out = column(c, f"{name}.qkv"), row(c, f"{name}.o")
        self.intake = self._qkv.intake
        self._sizes = (heads * d, kv_heads * d, kv_heads * d)
        self._rope, self._ropes = part.rope, c.ropes
        if part.rope is not None:
            c.ropes.add(part.rope)
        interleaved = part.rope is not None and part.rope.interleaved
        self._norms = _qk_norms(c, part, name)
        self._fused = self._norms is not None and _is_rms_per_head(part)
        eps = part.qk_norm[0].eps if part.qk_norm else 0.0
        self._heads = HeadsShape(heads, kv_heads, d, eps, part.clip, interleaved)
        scales = _scale(c, f"{name}.k_scale"), _scale(c, f"{name}.v_scale")
        self._shape = AttentionShape(heads, kv_heads, d, d, part.scale, part.window, part.softcap, *scales)
        self._sinks = c.take(f"{name}.sinks").float() if part.sinks else None
        self._group, slab = c.kv_plan.place(layer)
        block_size = c.kv_plan.groups[self._group].block_size
        self._cache = c.ops.helper("attention", "layout")(c.slabs[slab], c.kv_dtype, block_size, self._shape)
        self._split, self._attend, self._ops = c.ops.split_heads, c.ops.attention, c.ops
        self._whole = c.whole_heads
        self.folds = c.folds and self._whole and part.out_bias is False
        """`folded` may be used."""

    def __call__(self, x: torch.Tensor | Quantized, batch: Batch, only: torch.Tensor | None = None) -> torch.Tensor:
        """Of all tokens, or of `only` these; keys and values of all are kept."""
        y = self._mix(self._qkv(x), batch)
        return self._out(y if only is None else y[only])

    def folded(self, f: Folded, eps: float, batch: Batch, following: torch.Tensor) -> Folded:
        """The stream with the result added, on its way from a norm with `eps` into one with the weight `following`."""
        small = isinstance(f.scaled, Quantized)
        y = self._mix(self._ops.folded_linear(f, eps, self._qkv.packed, self._qkv.bias), batch, small)
        return self._ops.linear_fold(y, self._out.alone.packed, f.hidden, following)  # type: ignore[no-any-return]

    def maps(self) -> list[Map]:
        """The projections."""
        return [self._qkv.as_map(), self._out.alone.as_map()]

    def shrinks(self) -> bool:
        """Heads fill groups of e4m3 tokens, so that attention may give such."""
        return self._heads.dim in (64, 128)

    def _mix(self, qkv: torch.Tensor, batch: Batch, small: bool = False) -> torch.Tensor | Quantized:
        """[T, H * D] from projections; `small`: in e4m3."""
        turns = (None, None) if self._rope is None else self._ropes.at(self._rope, batch)
        q_norm = k_norm = None
        if self._norms is not None:
            if self._fused:
                q_norm, k_norm = self._norms[0].weight, self._norms[1].weight
            else:
                qkv = self._norm_rows(qkv)
        group = batch.groups[self._group]
        if self._whole and batch.max_query_len == 1:
            y = self._ops.heads_attention(
                qkv, self._heads, (q_norm, k_norm), turns, self._cache, batch, group, self._shape, self._sinks, small
            )
            if small:
                return y  # type: ignore[no-any-return]
        else:
            q, k, v = self._split(qkv, self._heads, q_norm, k_norm, *turns)
            y = self._attend(q, k, v, self._cache, batch, group, self._shape, self._sinks)
        return y.reshape(y.shape[0], -1)

    def _norm_rows(self, qkv: torch.Tensor) -> torch.Tensor:
        """Norms that are no RMS norm per head: over the whole row of heads, or layer norms."""
        assert self._norms is not None
        parts = list(qkv.split(self._sizes, -1))
        for i, (norm, heads) in enumerate(zip(self._norms, (self._heads.heads, self._heads.kv_heads), strict=True)):
            x = parts[i]
            parts[i] = norm(x.view(-1, heads, self._heads.dim)).flatten(1) if norm.per_head else norm(x)
        return torch.cat(parts, -1)


def _scale(c: Context, name: str) -> float:
    """What keys or values are divided by in an 8-bit cache: the checkpoint's number, or one."""
    scale = c.take_if(name)
    return 1.0 if scale is None or c.kv_dtype.itemsize > 1 else float(scale)


class QKNorm(NormLayer):
    """A norm of queries or keys, which knows whether it works per head."""

    __slots__ = ("per_head",)


def _is_rms_per_head(part: Attention) -> bool:
    assert part.qk_norm is not None
    return all(n.dim == part.heads.dim and n.kind == "rms" and n.affine for n in part.qk_norm)


def _qk_norms(c: Context, part: Attention, name: str) -> tuple[QKNorm, QKNorm] | None:
    if part.qk_norm is None:
        return None
    made = []
    for norm, what in zip(part.qk_norm, ("q_norm", "k_norm"), strict=True):
        per_head = norm.dim == part.heads.dim
        layer = QKNorm(c, norm, f"{name}.{what}", None if per_head else c.mesh.tp)
        layer.per_head = per_head
        made.append(layer)
    return made[0], made[1]
