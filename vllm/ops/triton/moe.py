"""Experts on a GPU: tokens are sorted by expert on the device, then two products read each chosen one's weights once.

    x ─ logits ─ top ─▶ weights, experts ─ sort ─▶ order, blocks         (a block: up to BM rows of one expert)
    up    grid (block, tile of I): act(gate) * up of the block's rows        both tiles of the weight in one program
    down  grid (block, tile of E): weight * down of the rows, in the order of tokens
    join  the sum over a token's experts, in their order

With few tokens choice and sort are one kernel; with very few every (token, expert) pair is a block of its own, and down
and join are one product whose weights are on their way before up is done: `moe_few.py`. With many: `moe_many.py`.
Choosing: `moe_choose.py`.
The norms around may be folded in (`ops/fold.py`). Nothing looks at the host, all shapes come from the number of tokens,
and no sum depends on who came first. Tiles are in `moe_tiles.py`.
"""

from types import ModuleType

import torch
import triton
import triton.language as tl

from vllm.ops.moe import Apart, experts
from vllm.ops.triton.activation import KINDS, gated
from vllm.ops.triton.chain import CHAINED, behind, follow, lead
from vllm.ops.triton.moe_choose import Picked, can, is_fixed
from vllm.ops.triton.moe_join import Ends, Onto, add_onto, empty_ends, joined
from vllm.ops.triton.moe_many import by_hopper, by_library, hopper_products
from vllm.ops.triton.moe_sort import Sorted, sort
from vllm.ops.triton.moe_tiles import Tiles, tiles
from vllm.util.arith import cdiv, next_power_of_2

_MANY = 64
"""From this many (token, expert) pairs per expert on kernels for many rows are faster."""
_EXACT_SUM = 2048
"""Up to this many pairs their results are kept in float32 until they are added."""


@triton.jit
def _rows(order, blocks, T, X: tl.constexpr, XP: tl.constexpr, BM: tl.constexpr, WAY: tl.constexpr):
    """(expert, places in h, pairs, which are real) of a block; expert -1 where there is none."""
    m, block = tl.arange(0, BM), tl.program_id(0)
    if WAY == 2:
        expert, place, pair, real = tl.load(order + block), block + m, block + m, m < 1
    elif WAY == 1:  # the first block of each expert, then all further ones
        expert, first = block, block * 0
        if block < X:
            count = tl.load(blocks + block)
        else:
            x = tl.arange(0, XP)
            counts = tl.load(blocks + x, x < X, 0)
            more = tl.where(counts > BM, (counts - 1) // BM, 0)
            expert = tl.sum((tl.cumsum(more, 0) <= block - X).to(tl.int32), 0)
            first = (block - X - tl.sum(tl.where(x < expert, more, 0), 0) + 1) * BM
            count = tl.sum(tl.where(x == expert, counts, 0), 0)
        real = first + m < count
        expert = tl.where(first < count, expert, -1)
        pair = tl.load(order + expert * T + first + m, real, 0)
        place = pair
    else:
        expert = tl.load(blocks + block * 3)
        first, last = tl.load(blocks + block * 3 + 1), tl.load(blocks + block * 3 + 2)
        place = first + m
        real = place < last
        pair = tl.load(order + place, real, 0)
    return expert, place, pair, real


@triton.jit
def _weight(weights, pair, real, A: tl.constexpr, AP: tl.constexpr, RENORMALIZE: tl.constexpr):
    """What pairs weigh in the sum over a token's experts."""
    weight = tl.load(weights + pair, real, 0.0)
    if RENORMALIZE:
        a = tl.arange(0, AP)
        beside = weights + (pair // A * A)[:, None] + a[None, :]
        total = tl.sum(tl.load(beside, (a < A)[None, :] & real[:, None], 0.0), 1)
        weight /= tl.where(real, total, 1.0)
    return weight


@triton.jit
def _up(x, w, weights, factors, out, order, blocks, T, x_stride, E: tl.constexpr, X: tl.constexpr, XP: tl.constexpr,
        I: tl.constexpr, A: tl.constexpr, AP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,  # noqa: E741
        BK: tl.constexpr, KIND: tl.constexpr, GATED: tl.constexpr, WAY: tl.constexpr, TURNED: tl.constexpr,
        RENORMALIZE: tl.constexpr, FOLDED: tl.constexpr):  # fmt: skip
    follow()
    expert, place, pair, real = _rows(order, blocks, T, X, XP, BM, WAY)
    if expert < 0:
        return
    n, k = tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, BK)
    row = x + (pair // A).to(tl.int64) * x_stride
    gate_w = w + expert.to(tl.int64) * (2 * I * E if GATED else I * E) + n.to(tl.int64) * E
    gate = tl.zeros((BN, BM) if TURNED else (BM, BN), tl.float32)
    up = tl.zeros((BN, BM) if TURNED else (BM, BN), tl.float32)
    for i in range(0, E, BK):
        at = i + k
        mine = real[:, None] if E % BK == 0 else real[:, None] & (at[None, :] < E)
        if TURNED:
            there = n[:, None] < I if E % BK == 0 else (n[:, None] < I) & (at[None, :] < E)
            rows = tl.trans(tl.load(row[:, None] + at[None, :], mine, 0.0))
            spot = gate_w[:, None] + at[None, :]
            gate = tl.dot(tl.load(spot, there, 0.0), rows, gate, input_precision="ieee")
            if GATED:
                up = tl.dot(tl.load(spot + I * E, there, 0.0), rows, up, input_precision="ieee")
        else:
            there = n[None, :] < I if E % BK == 0 else (n[None, :] < I) & (at[:, None] < E)
            rows = tl.load(row[:, None] + at[None, :], mine, 0.0)
            spot = gate_w[None, :] + at[:, None]
            gate = tl.dot(rows, tl.load(spot, there, 0.0), gate, input_precision="ieee")
            if GATED:
                up = tl.dot(rows, tl.load(spot + I * E, there, 0.0), up, input_precision="ieee")
    if FOLDED:
        factor = tl.load(factors + pair // A, real, 0.0)
        factor = factor[None, :] if TURNED else factor[:, None]
        gate, up = gate * factor, up * factor
    y = gated(gate, up, KIND) if GATED else gated(gate, 1.0, KIND)
    if TURNED:
        y = tl.trans(y)
    if WAY == 2:  # the sum over experts is one product then
        y *= _weight(weights, pair, real, A, AP, RENORMALIZE)[:, None]
    spot = out + place[:, None].to(tl.int64) * I + n[None, :]
    tl.store(spot, y.to(out.dtype.element_ty), real[:, None] & (n[None, :] < I))


@triton.jit
def _part(w, experts, k, n, A: tl.constexpr, E: tl.constexpr, I: tl.constexpr):  # noqa: E741
    """Columns `k` of the weights of a token's experts, side by side."""
    expert = tl.load(experts + k // I, k < A * I, 0).to(tl.int64)
    spot = expert[None, :] * (E * I) + n[:, None].to(tl.int64) * I + (k % I)[None, :]
    return tl.load(w + spot, (n[:, None] < E) & (k[None, :] < A * I), 0.0, eviction_policy="evict_first")


@triton.jit
def _down_alone(h, w, experts, hidden, norm, out, scaled, sums, T, E: tl.constexpr, I: tl.constexpr,  # noqa: E741
                A: tl.constexpr, BN: tl.constexpr, KP: tl.constexpr, KQ: tl.constexpr,
                ADD: tl.constexpr):  # fmt: skip
    """One token: its experts' weights as one matrix, side by side, in two pieces so that little is wasted."""
    token, tile = tl.program_id(0), tl.program_id(1)
    lead()
    n, k, q = tile * BN + tl.arange(0, BN), tl.arange(0, KP), KP + tl.arange(0, KQ)
    # why: the kernel before the last one chose, so the choice is there before `follow`
    weight, other = _part(w, experts + token * A, k, n, A, E, I), _part(w, experts + token * A, q, n, A, E, I)
    after = tl.load(norm + n, n < E, 0.0) if ADD else 0.0
    behind()
    at = token * E + n
    stream = tl.load(hidden + at, n < E, 0.0) if ADD else 0.0
    row = tl.load(h + token * (A * I) + k).to(tl.float32)
    rest = tl.load(h + token * (A * I) + q, q < A * I, 0.0).to(tl.float32)
    y = tl.sum(weight.to(tl.float32) * row[None, :], 1) + tl.sum(other.to(tl.float32) * rest[None, :], 1)
    y = y.to(out.dtype.element_ty)
    if ADD:
        y = add_onto(y, stream, after, scaled, sums + tile * T + token, at, n < E)
    tl.store(out + at, y, n < E)


@triton.jit
def _down(h, w, weights, out, order, blocks, T, E: tl.constexpr, X: tl.constexpr, XP: tl.constexpr,
          I: tl.constexpr, A: tl.constexpr, AP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,  # noqa: E741
          BK: tl.constexpr, WAY: tl.constexpr, TURNED: tl.constexpr, RENORMALIZE: tl.constexpr):  # fmt: skip
    follow()
    expert, place, pair, real = _rows(order, blocks, T, X, XP, BM, WAY)
    if expert < 0:
        return
    n, k = tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, BK)
    row = h + place.to(tl.int64) * I
    mine_w = w + expert.to(tl.int64) * (E * I) + n.to(tl.int64) * I
    acc = tl.zeros((BN, BM) if TURNED else (BM, BN), tl.float32)
    for i in range(0, I, BK):
        at = i + k
        mine = real[:, None] if I % BK == 0 else real[:, None] & (at[None, :] < I)
        rows = tl.load(row[:, None] + at[None, :], mine, 0.0)
        if TURNED:
            there = n[:, None] < E if I % BK == 0 else (n[:, None] < E) & (at[None, :] < I)
            weight = tl.load(mine_w[:, None] + at[None, :], there, 0.0)
            acc = tl.dot(weight, tl.trans(rows), acc, input_precision="ieee")
        else:
            there = n[None, :] < E if I % BK == 0 else (n[None, :] < E) & (at[:, None] < I)
            weight = tl.load(mine_w[None, :] + at[:, None], there, 0.0)
            acc = tl.dot(rows, weight, acc, input_precision="ieee")
    if TURNED:
        acc = tl.trans(acc)
    y = acc * _weight(weights, pair, real, A, AP, RENORMALIZE)[:, None]
    spot = out + pair[:, None].to(tl.int64) * E + n[None, :]
    tl.store(spot, y.to(out.dtype.element_ty), real[:, None] & (n[None, :] < E))


@experts.kernel("triton", when=can)
def experts_triton(
    x_TE: torch.Tensor,
    weights_TA: torch.Tensor,
    experts_TA: torch.Tensor,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> torch.Tensor:
    """See the op."""
    return joined(unjoined(x_TE, weights_TA, experts_TA, up_XJE, down_XEI, act), x_TE.dtype, None)[0]


def takes_many(x: torch.Tensor, pairs: int, up: torch.Tensor, down: torch.Tensor, act: str) -> ModuleType | None:
    """Hopper's products, where they serve so many pairs."""
    if pairs < _MANY * up.shape[0] or up.shape[1] != 2 * down.shape[2]:
        return None
    hopper = hopper_products()
    return hopper if hopper is not None and hopper.can(x, up, down, act) else None


def unjoined(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    act: str,
    s: Sorted | None = None,
) -> Apart:
    """Results of pairs by the kernels that are best for so many; `s`: sorted already, for Hopper's products."""
    pairs, num = ids.numel(), up.shape[0]
    if takes_many(x, pairs, up, down, act) is not None:
        return by_hopper(x, weights, ids, up, down, s)
    is_whole = up.shape[1] == 2 * down.shape[2] and up.shape[2] % 8 == 0 and down.shape[2] % 8 == 0
    if pairs >= _MANY * num and is_whole and x.dtype is torch.bfloat16:
        return by_library(x, weights, ids, up, down, act)
    return in_order(x, (weights, ids, None), up, down, act, tiles(pairs, num, x.dtype, alone=False))


@experts.kernel("fixed", when=is_fixed, rank=2)
def experts_fixed(
    x_TE: torch.Tensor,
    weights_TA: torch.Tensor,
    experts_TA: torch.Tensor,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> torch.Tensor:
    """One way for any number of tokens, rounded at the same places: what a token gets does not depend on it."""
    z = tiles(1 << 20, 1, x_TE.dtype, alone=False)
    return grouped(x_TE, weights_TA, experts_TA, up_XJE, down_XEI, act, z, x_TE.dtype)


def grouped(
    x: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    act: str,
    z: Tiles,
    kept: torch.dtype | None = None,
) -> torch.Tensor:
    """The kernels of this file with tiles of one's own choice. `kept`: the dtype of results before their sum."""
    return joined(in_order(x, (weights, ids, None), up, down, act, z, kept), x.dtype, None)[0]


Choice = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Weights and experts of each token, and the factors of a folded norm."""


def in_order(
    x: torch.Tensor,
    choice: Choice,
    up: torch.Tensor,
    down: torch.Tensor,
    act: str,
    z: Tiles,
    kept: torch.dtype | None = None,
) -> Apart:
    """Results of pairs by sorting them."""
    weights, ids, factors = choice
    s = sort(ids, down.shape[0], z.bm)
    h = up_product(x, up, down.shape[2], weights, s, act, z, factors)
    return Apart(down_product(h, down, weights, s, z, kept), weights, None)


Blocks = tuple[torch.Tensor, torch.Tensor, int, int, int, bool]
"""order, list of blocks, how many programs they take, tokens, way and whether to renormalize, for the kernels."""


def _blocks(s: Sorted | Picked, bm: int) -> Blocks:
    if isinstance(s, Sorted):
        return s.order, s.blocks, s.num_blocks, 0, 0, False
    if s.alone:
        return s.order, s.order, s.pairs, 0, 2, s.renormalize
    num, tokens = s.order.shape
    return s.order, s.counts, num + (s.pairs // bm if tokens > bm else 0), tokens, 1, s.renormalize


def up_product(
    x: torch.Tensor,
    up: torch.Tensor,
    inter: int,
    weights: torch.Tensor,
    s: Sorted | Picked,
    act: str,
    z: Tiles,
    factors: torch.Tensor | None = None,
) -> torch.Tensor:
    """act(gate) * up of every pair, in sorted order, or that of pairs: [pairs, I].

    Where pairs are alone also times the pair's weight. `factors`: of the rows' folded norm.
    """
    num, width, t, top_k = up.shape[0], x.shape[1], z.up, weights.shape[1]
    order, blocks, most, tokens, way, renormalize = _blocks(s, z.bm)
    h = torch.empty((weights.numel(), inter), dtype=x.dtype, device=x.device)
    _up[(most, cdiv(inter, t.bn))](
        x, up, weights, weights if factors is None else factors, h, order, blocks, tokens, x.stride(0), width, num,
        next_power_of_2(num), inter, top_k, next_power_of_2(top_k), z.bm, t.bn, t.bk, KINDS[act],
        up.shape[1] == 2 * inter, way, t.turned, renormalize, factors is not None, num_warps=t.warps,
        num_stages=t.stages, **CHAINED,
    )  # fmt: skip
    return h


def down_alone(h: torch.Tensor, down: torch.Tensor, chosen: torch.Tensor, z: Tiles, onto: Onto | None = None) -> Ends:
    """The sum over each token's experts of down, from rows that are weighted: [T, E]."""
    (_, width, inter), (tokens, top_k), t = down.shape, chosen.shape, z.down
    tiles, inputs = cdiv(width, t.bn), top_k * inter
    ends = empty_ends(onto, tokens, width, tiles, h.dtype, h.device)
    head = 1 << (inputs.bit_length() - 1)
    _down_alone[(tokens, tiles)](
        h, down, chosen, *(onto or ends[:2]), *ends, tokens, width, inter, top_k, t.bn, head,
        next_power_of_2(max(1, inputs - head)), onto is not None, num_warps=t.warps, **CHAINED,
    )  # fmt: skip
    return ends


def down_product(
    h: torch.Tensor,
    down: torch.Tensor,
    weights: torch.Tensor,
    s: Sorted | Picked,
    z: Tiles,
    kept: torch.dtype | None = None,
) -> torch.Tensor:
    """weight * down of every pair, in the order of pairs: [pairs, E]."""
    (num, width, inter), pairs, t = down.shape, h.shape[0], z.down
    kept = kept or (torch.float32 if pairs <= _EXACT_SUM else h.dtype)
    y = torch.empty((pairs, width), dtype=kept, device=h.device)
    order, blocks, most, tokens, way, renormalize = _blocks(s, z.bm)
    top_k = weights.shape[1]
    _down[(most, cdiv(width, t.bn))](
        h, down, weights, y, order, blocks, tokens, width, num, next_power_of_2(num), inter, top_k,
        next_power_of_2(top_k), z.bm, t.bn, t.bk, way, t.turned, renormalize, num_warps=t.warps,
        num_stages=t.stages, **CHAINED,
    )  # fmt: skip
    return y
