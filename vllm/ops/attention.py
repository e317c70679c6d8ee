"""Attention over the paged KV cache: write this step's keys and values, then let every token read what it may.

T tokens of the step, S sequences, H query heads, K key/value heads, G = H / K, D key size, N value size, B blocks,
P tokens per block. A token at position p of its sequence reads positions max(0, p - window + 1) .. p.

The kernel owns the layout of a layer's cache; the slab it lives in is raw memory of [B, bytes]. Reference layout, the
same in every block::

    | K transposed: [K, D, P] | V: [K, P, N] | unused |

Blocks below a sliding window may be NULL_BLOCK in the table; they are never read.

A cache in 8 bits (e4m3, e5m2) keeps key / k_scale and value / v_scale, rounded to the nearest and held within the
largest value of the type; what is read is times the scale again.
"""

from dataclasses import dataclass

import torch

from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Tol, op

_QUERY_TILE = 256


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What stays the same from step to step. Heads are those of this rank."""

    heads: int
    kv_heads: int
    dim: int
    v_dim: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    k_scale: float = 1.0
    v_scale: float = 1.0


@dataclass(slots=True)
class Cache:
    """Reference layout of one layer's cache: the slab as elements, and K^T and V as views of it."""

    flat: torch.Tensor
    """[B, elements per block]"""
    k: torch.Tensor
    """[B, K, D, P]"""
    v: torch.Tensor
    """[B, K, P, N]"""


def layout(slab: torch.Tensor, dtype: torch.dtype, block_size: int, shape: AttentionShape) -> Cache:
    """Views of a uint8 slab [B, bytes] for blocks of `block_size` tokens."""
    flat = slab.view(dtype)
    blocks, stride, kv = flat.shape[0], flat.stride(0), shape.kv_heads
    k_size, v_size = kv * shape.dim * block_size, kv * shape.v_dim * block_size
    assert k_size + v_size <= flat.shape[1], f"a block needs {k_size + v_size} elements, the slab has {flat.shape[1]}"
    start = flat.storage_offset()
    k = flat.as_strided((blocks, kv, shape.dim, block_size), (stride, shape.dim * block_size, block_size, 1), start)
    v = flat.as_strided(
        (blocks, kv, block_size, shape.v_dim), (stride, block_size * shape.v_dim, shape.v_dim, 1), start + k_size
    )
    return Cache(flat, k, v)


@op(tol=Tol(f32=1e-5, bf16=2e-2, f16=3e-3), layout=layout)
def attention(
    q_THD: torch.Tensor,
    k_TKD: torch.Tensor,
    v_TKN: torch.Tensor,
    cache: Cache,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(softcap(scale * q k^T)) v over each sequence's visible keys, in float32: [T, H, N] of q's dtype.

    `sinks_H` adds, per head, a logit that takes weight and gives no value.
    """
    write_kv(k_TKD, v_TKN, cache, group, shape)
    out = torch.empty(q_THD.shape[0], shape.heads, shape.v_dim, dtype=q_THD.dtype, device=q_THD.device)
    start = 0
    for s, query_len in enumerate(batch.query_lens):
        if not query_len:
            continue
        seq_len, q = batch.host_seq_lens[s], q_THD[start : start + query_len]
        for first in range(0, query_len, _QUERY_TILE):
            tile = q[first : first + _QUERY_TILE]
            last = seq_len - query_len + first + tile.shape[0]
            out[start + first : start + first + tile.shape[0]] = _attend(
                tile, last, cache, group.block_table[s], group.block_size, shape, sinks_H
            )
        start += query_len
    return out


def write_kv(k_TKD: torch.Tensor, v_TKN: torch.Tensor, cache: Cache, group: GroupBatch, shape: AttentionShape) -> None:
    """Put each token's key and value into its slot."""
    block = group.slot_mapping // group.block_size
    offset = group.slot_mapping - block * group.block_size
    raw(cache.k)[block, :, :, offset] = raw(stored(k_TKD, cache.k.dtype, shape.k_scale))
    raw(cache.v)[block, :, offset] = raw(stored(v_TKN, cache.v.dtype, shape.v_scale))


def stored(x: torch.Tensor, dtype: torch.dtype, scale: float) -> torch.Tensor:
    """x as a cache of `dtype` keeps it."""
    if dtype.itemsize > 1:
        return x.to(dtype)
    most = torch.finfo(dtype).max
    return (x.float() / scale).clamp(-most, most).to(dtype)


def raw(x: torch.Tensor) -> torch.Tensor:
    """8-bit values as bytes: torch can index those on every device."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x


def _attend(
    q_QHD: torch.Tensor,
    seq_len: int,
    cache: Cache,
    table_B: torch.Tensor,
    block_size: int,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None,
) -> torch.Tensor:
    """One sequence: its last Q tokens before `seq_len` read their keys. [Q, H, N]."""
    num, kv, group = q_QHD.shape[0], shape.kv_heads, shape.heads // shape.kv_heads
    context = seq_len - num
    lowest = 0 if shape.window is None else max(0, context - shape.window + 1)
    first_block = lowest // block_size
    ids = table_B[first_block : -(-seq_len // block_size)].long()
    base, blocks = first_block * block_size, ids.shape[0]
    # why: whole blocks are gathered at the speed of a copy; a gather of strided views is many times slower
    flat = raw(cache.flat).index_select(0, ids).view(cache.flat.dtype)
    k_size = kv * shape.dim * block_size
    k = flat[:, :k_size].view(blocks, kv, shape.dim, block_size)
    v = flat[:, k_size : k_size + kv * block_size * shape.v_dim].view(blocks, kv, block_size, shape.v_dim)
    k = k.permute(1, 2, 0, 3).reshape(kv, shape.dim, -1)[..., : seq_len - base].float()
    v = v.transpose(0, 1).reshape(kv, -1, shape.v_dim)[:, : seq_len - base].float()
    if cache.flat.dtype.itemsize == 1:
        k, v = k * shape.k_scale, v * shape.v_scale
    # why: the queries of a group share their keys, so they are rows of one product
    q = q_QHD.view(num, kv, group, shape.dim).transpose(0, 1).reshape(kv, num * group, shape.dim).float()
    scores = torch.bmm(q, k) * shape.scale
    if shape.softcap is not None:
        scores = shape.softcap * torch.tanh(scores / shape.softcap)
    scores = scores.view(kv, num, group, -1)
    if num > 1 or lowest > base:
        _mask(scores, context, base, shape.window)
    weights = _softmax(scores, sinks_H)
    out = torch.bmm(weights.view(kv, num * group, -1), v)
    return out.view(kv, num, group, shape.v_dim).transpose(0, 1).reshape(num, shape.heads, shape.v_dim).to(q_QHD.dtype)


def _mask(scores: torch.Tensor, context: int, base: int, window: int | None) -> None:
    """Hide later positions, and those before the window, in scores [K, Q, G, keys]; key j is at position base + j."""
    num, keys = scores.shape[1], scores.shape[3]
    query = torch.arange(context, context + num, device=scores.device)[:, None]
    key = torch.arange(base, base + keys, device=scores.device)[None, :]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    scores.masked_fill_(hidden[None, :, None, :], float("-inf"))


def _softmax(scores: torch.Tensor, sinks_H: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the last dimension of [K, Q, G, keys], with a sink logit per head where given."""
    if sinks_H is None:
        return torch.softmax(scores, -1)
    kv, num, group, _ = scores.shape
    sinks = sinks_H.float().view(kv, 1, group, 1).expand(kv, num, group, 1)
    return torch.softmax(torch.cat((scores, sinks), -1), -1)[..., :-1]
