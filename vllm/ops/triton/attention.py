"""Attention over the paged cache on a GPU: write keys and values, then read them.

    one token  `decode.py`: a program reads a share of the blocks with all query heads of the group as rows
    other n    `prefill.py`, on Hopper `prefill_hopper.py`: rows are query tokens x heads of the group

Layout of a block: `paged.py`. Sequences of one token that lead a step are read as decodes, the rest as prompts. Work is
found on the device from query_start and seq_lens: nothing here depends on host values but the number of sequences of
either kind, so one CUDA graph serves every mix of lengths.
A cache in 8 bits is read as float16 (every e4m3 and e5m2 value is one) and multiplied in it, scales left to the ends.
Online softmax in float32 as in Dao, FlashAttention-2 (2023); split reading as in Flash-Decoding (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
import triton
import triton.language as tl

from vllm.ops.attention import AttentionShape, attention
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.chip import for_hopper
from vllm.ops.triton.decode import attend_written
from vllm.ops.triton.paged import PagedCache, Sizes, layout
from vllm.ops.triton.prefill import PrefillCall, plain_tile, prefill_plain
from vllm.ops.triton.round import round_e4m3
from vllm.util.arith import cdiv


@triton.jit
def narrow(x, scale, kept: tl.constexpr, MOST: tl.constexpr):
    """x as the cache keeps it; MOST is the largest value of an 8-bit type, 0 for others."""
    if MOST:
        x = tl.minimum(tl.maximum(tl.div_rn(x.to(tl.float32), scale), -MOST), MOST)
        if kept == tl.float8e4nv:
            x = round_e4m3(x)
        x = x.to(kept)
    return x


@triton.jit(do_not_specialize=["tokens", "table_stride", "before"])
def _write(k, v, cache, slots, query_start, seq_lens, table, tokens, k_stride, v_stride, table_stride, block_stride,
           before, k_scale, v_scale, KV: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr,
           NP: tl.constexpr, P: tl.constexpr, MOST: tl.constexpr, BT: tl.constexpr):  # fmt: skip
    """Keys and values of BT tokens into their slots; programs behind those clear the last block of a sequence."""
    tile, head = tl.program_id(0), tl.program_id(1)
    d, n = tl.arange(0, DP)[None, :], tl.arange(0, NP)[None, :]
    follow()
    num_tiles = (tokens + BT - 1) // BT
    if tile < num_tiles:
        token = (tile * BT + tl.arange(0, BT)[:, None]).to(tl.int64)
        slot = tl.load(slots + token, token < tokens, 0)
        block, offset = slot // P, slot % P
        base = cache + block * block_stride
        key = tl.load(k + token * k_stride + head * D + d, (token < tokens) & (d < D))
        key = narrow(key, k_scale, cache.dtype.element_ty, MOST)
        tl.store(base + (head * P + offset) * D + d, key, (token < tokens) & (d < D))
        value = tl.load(v + token * v_stride + head * N + n, (token < tokens) & (n < N))
        value = narrow(value, v_scale, cache.dtype.element_ty, MOST)
        tl.store(base + KV * P * D + (head * P + offset) * N + n, value, (token < tokens) & (n < N))
    else:
        seq = before + tile - num_tiles
        seq_len = tl.load(seq_lens + seq)
        used = seq_len % P
        if (used > 0) & (tl.load(query_start + seq + 1) > tl.load(query_start + seq)):
            block = tl.load(table + seq.to(tl.int64) * table_stride + seq_len // P).to(tl.int64)
            offset = tl.arange(0, P)[:, None]
            spot = cache + block * block_stride + KV * P * D + (head * P + offset) * N + n
            tl.store(spot, tl.zeros((P, NP), tl.float32).to(cache.dtype.element_ty), (offset >= used) & (n < N))


def _can(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (7, 0)


@attention.kernel("triton", when=_can, layout=layout)
def attention_triton(
    q_THD: torch.Tensor,
    k_TKD: torch.Tensor,
    v_TKN: torch.Tensor,
    cache: PagedCache,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """See the op. q, k and v are contiguous inside a token; a token's stride is free."""
    tokens, decodes = q_THD.shape[0], _leading_decodes(batch)
    hopper = _hopper_kernel(q_THD, cache.flat, shape) if decodes < batch.num_seqs else None
    clear = batch.num_seqs - decodes if hopper is not None else 0
    _run_write((k_TKD, v_TKN), cache.flat, batch, group, shape, clear)
    out = q_THD.new_empty(tokens, shape.heads, shape.v_dim)
    if decodes:
        attend_written(q_THD[:decodes], cache.flat, batch, group, shape, sinks_H, out)
    if decodes < batch.num_seqs:
        call = PrefillCall(cache.flat, group.block_table, batch.seq_lens, group.block_size, shape, sinks_H)
        if hopper is not None:
            hopper(q_THD, call, batch, decodes, out)
        else:
            prefill_plain(q_THD, call, batch, decodes, out, plain_tile(shape, q_THD.dtype.itemsize))
    return out


def _hopper() -> ModuleType | None:
    return for_hopper("prefill_hopper", "prefill attention runs on its plain kernel, which is slower")


def _hopper_kernel(q: torch.Tensor, flat: torch.Tensor, shape: AttentionShape) -> Callable[..., None] | None:
    module = _hopper()
    return module.prefill_hopper if module is not None and module.can(q, flat, shape) else None


def _run_write(
    pair: tuple[torch.Tensor, torch.Tensor],
    flat: torch.Tensor,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    clear: int,
) -> None:
    """Write the step's keys and values; the last `clear` sequences get zeros behind their last value."""
    (k, v), table, z = pair, group.block_table, Sizes(shape, group.block_size)
    tokens, most = k.shape[0], int(torch.finfo(flat.dtype).max) if flat.dtype.itemsize == 1 else 0
    together = 1 if tokens <= 512 else 16
    _write[(cdiv(tokens, together) + clear, z.kv)](
        k, v, flat, group.slot_mapping, batch.query_start, batch.seq_lens, table, tokens, k.stride(0), v.stride(0),
        table.stride(0), flat.stride(0), batch.num_seqs - clear, shape.k_scale, shape.v_scale, z.kv, z.d, z.n, z.dp,
        z.np, z.p, most, together, num_warps=1 if together == 1 else 4, **CHAINED,
    )  # fmt: skip


def _leading_decodes(batch: Batch) -> int:
    """Sequences of one query token before the first that has more; counted once per step."""
    if batch.max_query_len == 1:
        return batch.num_seqs
    found = batch.scratch.get("decodes")
    if not isinstance(found, int):
        found = batch.scratch["decodes"] = next(i for i, n in enumerate(batch.query_lens) if n != 1)
    return found
