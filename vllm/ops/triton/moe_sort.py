"""(token, expert) pairs in the order of their experts, on the device, without a look from the host.

    few pairs    one program per expert: everything in one kernel
    many pairs   count per chunk of pairs ─ add up ─ place: three kernels
    counted      by who chose, per chunk of tokens: one kernel

The order inside an expert is that of the pairs. Called by: moe.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vllm.ops.triton.chain import CHAINED, follow
from vllm.util.arith import cdiv, next_power_of_2

_FEW = 2048
_CHUNK = 1024
CHUNK = 128
"""Tokens whose pairs are counted together by who chooses."""


@dataclass(slots=True)
class Sorted:
    """Pairs sorted by expert, and blocks of rows of one expert."""

    order: torch.Tensor
    """[pairs] int32: the pair at each place."""
    place: torch.Tensor
    """[pairs] int32: the place of each pair."""
    blocks: torch.Tensor
    """[num_blocks, 3] int32: expert, first place, end of the expert's places; (-1, 0, 0) is none."""
    ends: torch.Tensor
    """[experts] int32: end of each expert's places."""
    num_blocks: int
    """Most blocks that there can be."""


@triton.jit
def _blocks_of(counts, e, ends, blocks, X: tl.constexpr, XP: tl.constexpr, BM: tl.constexpr, MOST: tl.constexpr,
               BLOCKS: tl.constexpr):  # fmt: skip
    """Write the end and the blocks of expert e; the last expert also writes those that are none."""
    x = tl.arange(0, XP)
    num = tl.where(x < X, (counts + BM - 1) // BM, 0)
    start = tl.sum(tl.where(x < e, counts, 0), 0)
    mine = tl.sum(tl.where(x == e, counts, 0), 0)
    before, used = tl.sum(tl.where(x < e, num, 0), 0), tl.sum(num, 0)
    tl.store(ends + e, start + mine)
    for first in range(0, (mine + BM - 1) // BM, MOST):
        b = first + tl.arange(0, MOST)
        there = b * BM < mine
        tl.store(blocks + (before + b) * 3, e + b * 0, there)
        tl.store(blocks + (before + b) * 3 + 1, start + b * BM, there)
        tl.store(blocks + (before + b) * 3 + 2, start + mine + b * 0, there)
    if e == X - 1:
        for first in range(used, BLOCKS, 128):
            b = first + tl.arange(0, 128)
            tl.store(blocks + b * 3, b * 0 - 1, b < BLOCKS)
            tl.store(blocks + b * 3 + 1, b * 0, b < BLOCKS)
            tl.store(blocks + b * 3 + 2, b * 0, b < BLOCKS)
    return start


@triton.jit
def _sort_few(ids, order, place, blocks, ends, N, X: tl.constexpr, XP: tl.constexpr, NP: tl.constexpr,
              BM: tl.constexpr, BLOCKS: tl.constexpr):  # fmt: skip
    e, i = tl.program_id(0), tl.arange(0, NP)
    follow()
    mine = tl.load(ids + i, i < N, XP - 1).to(tl.int32)
    start = _blocks_of(tl.histogram(mine, XP), e, ends, blocks, X, XP, BM, 16, BLOCKS)
    is_mine = mine == e
    at = start + tl.cumsum(is_mine.to(tl.int32), 0) - 1
    tl.store(order + at, i, is_mine)
    tl.store(place + i, at, is_mine)


@triton.jit
def _count(ids, counts, N, XP: tl.constexpr, CHUNK: tl.constexpr):
    chunk = tl.program_id(0)
    i = chunk * CHUNK + tl.arange(0, CHUNK)
    follow()
    mine = tl.load(ids + i, i < N, XP - 1).to(tl.int32)
    tl.store(counts + chunk * XP + tl.arange(0, XP), tl.histogram(mine, XP))


@triton.jit
def _add_up(counts, starts, blocks, ends, C, X: tl.constexpr, XP: tl.constexpr, CP: tl.constexpr, BM: tl.constexpr,
            BLOCKS: tl.constexpr):  # fmt: skip
    """One program per expert: its blocks, and where each chunk's pairs of it begin."""
    e, x = tl.program_id(0), tl.arange(0, XP)
    follow()
    total = tl.zeros((XP,), tl.int32)
    for first in range(0, C, 16):
        c = first + tl.arange(0, 16)
        total += tl.sum(tl.load(counts + c[:, None] * XP + x[None, :], c[:, None] < C, 0), 0)
    start = _blocks_of(total, e, ends, blocks, X, XP, BM, 16, BLOCKS)
    c = tl.arange(0, CP)
    mine = tl.load(counts + c * XP + e, c < C, 0)
    tl.store(starts + c * XP + e, start + tl.cumsum(mine, 0) - mine, c < C)


@triton.jit
def _place(ids, starts, order, place, N, XP: tl.constexpr, CHUNK: tl.constexpr):
    """The pairs of a chunk go to their places."""
    chunk = tl.program_id(0)
    i = tl.arange(0, CHUNK)
    follow()
    pair = chunk * CHUNK + i
    mine = tl.load(ids + pair, pair < N, XP - 1).to(tl.int32)
    lens = tl.histogram(mine, XP)
    first = tl.cumsum(lens, 0) - lens
    key = tl.sort(mine * CHUNK + i)
    expert, pair = key // CHUNK, chunk * CHUNK + key % CHUNK
    at = tl.load(starts + chunk * XP + expert, pair < N, 0) + i - tl.gather(first, expert, 0)
    tl.store(order + at, pair, pair < N)
    tl.store(place + pair, at, pair < N)


@triton.jit
def _place_many(ids, counts, order, place, blocks, ends, T, C, X: tl.constexpr, XP: tl.constexpr, A: tl.constexpr,
                BT: tl.constexpr, BM: tl.constexpr, BLOCKS: tl.constexpr):  # fmt: skip
    """The pairs of a chunk of tokens go to their places; every program adds up the counts of all for itself."""
    chunk, x = tl.program_id(0), tl.arange(0, XP)
    t = chunk * BT + tl.arange(0, BT)
    follow()
    total, before = tl.zeros((XP,), tl.int32), tl.zeros((XP,), tl.int32)
    for first in range(0, C, 32):
        c = first + tl.arange(0, 32)
        some = tl.load(counts + c[:, None] * XP + x[None, :], c[:, None] < C, 0)
        total += tl.sum(some, 0)
        before += tl.sum(tl.where(c[:, None] < chunk, some, 0), 0)
    slot = tl.full((BT, XP), -1, tl.int32)
    for a in tl.static_range(A):
        expert = tl.load(ids + t * A + a, t < T, -1)
        slot = tl.where(x[None, :] == expert[:, None], a, slot)
    picked = slot >= 0
    start = tl.cumsum(total, 0) - total + before
    at = start[None, :] + tl.cumsum(picked.to(tl.int32), 0) - 1
    pair = t[:, None] * A + slot
    tl.store(order + at, pair, picked)
    tl.store(place + pair, at, picked)
    for e in range(chunk, X, tl.num_programs(0)):
        _blocks_of(total, e, ends, blocks, X, XP, BM, 16, BLOCKS)


def sort_counted(chosen: torch.Tensor, counts: torch.Tensor, num: int, bm: int) -> Sorted:
    """As `sort` where the pairs of each expert in each chunk of tokens are counted: [chunks, experts or more]."""
    (tokens, top_k), (chunks, wide) = chosen.shape, counts.shape
    pairs = tokens * top_k
    most = min(pairs, num + pairs // bm)
    words = torch.empty((2 * pairs + 3 * most + num,), dtype=torch.int32, device=chosen.device)
    order, place, flat, ends = words.split((pairs, pairs, 3 * most, num))
    _place_many[(chunks,)](
        chosen, counts, order, place, flat, ends, tokens, chunks, num, wide, top_k, CHUNK, bm, most, num_warps=8,
        **CHAINED,
    )  # fmt: skip
    return Sorted(order, place, flat.view(most, 3), ends, most)


def sort(chosen: torch.Tensor, num: int, bm: int) -> Sorted:
    """Sort the pairs of `chosen` [T, A] over `num` experts, with blocks of `bm` rows."""
    pairs, device = chosen.numel(), chosen.device
    most = min(pairs, num + pairs // bm)
    words = torch.empty((2 * pairs + 3 * most + num,), dtype=torch.int32, device=device)
    order, place, flat, ends = words.split((pairs, pairs, 3 * most, num))
    s = Sorted(order, place, flat.view(most, 3), ends, most)
    wide = next_power_of_2(num + 1)
    if pairs <= _FEW:
        _sort_few[(num,)](
            chosen, order, place, flat, ends, pairs, num, wide, next_power_of_2(pairs), bm, most,
            num_warps=4, **CHAINED,
        )  # fmt: skip
        return s
    chunks = cdiv(pairs, _CHUNK)
    counts, starts = torch.empty((2, chunks * wide), dtype=torch.int32, device=device)
    _count[(chunks,)](chosen, counts, pairs, wide, _CHUNK, num_warps=4, **CHAINED)
    _add_up[(num,)](
        counts, starts, flat, ends, chunks, num, wide, next_power_of_2(chunks), bm, most, num_warps=4, **CHAINED
    )
    _place[(chunks,)](chosen, starts, order, place, pairs, wide, _CHUNK, num_warps=4, **CHAINED)
    return s
