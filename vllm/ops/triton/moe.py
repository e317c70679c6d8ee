"""Experts on a GPU: tokens are sorted by expert on the device, then two products read each chosen one's weights once.

    x ─ logits ─ top ─▶ weights, experts ─ sort ─▶ order, blocks         (a block: up to BM rows of one expert)
    up    grid (block, tile of I): act(gate) * up of the block's rows        both tiles of the weight in one program
    down  grid (block, tile of E): weight * down of the rows, in the order of tokens
    join  the sum over a token's experts, in their order

With few tokens every (token, expert) pair is a block of its own, nothing is sorted, and down and join are one product
whose weights are on their way before up is done; with many, see `moe_many.py`. Choosing: `moe_choose.py`.
The norms around may be folded in (`ops/fold.py`). Nothing looks at the host, all shapes come from the number of tokens,
and no sum depends on who came first. Tiles are in `moe_tiles.py`.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.fold import Folded, folded_experts
from vllm.ops.moe import experts
from vllm.ops.triton.activation import KINDS, gated
from vllm.ops.triton.chain import CHAINED, behind, follow, lead
from vllm.ops.triton.moe_choose import can, is_fixed, may_fold
from vllm.ops.triton.moe_join import Ends, Onto, add_onto, empty_ends, joined
from vllm.ops.triton.moe_many import by_hopper, by_library, hopper_products
from vllm.ops.triton.moe_sort import Sorted, sort
from vllm.ops.triton.moe_tiles import Tiles, tiles

_MANY = 64
"""From this many (token, expert) pairs per expert on kernels for many rows are faster."""
_EXACT_SUM = 2048
"""Up to this many pairs their results are kept in float32 until they are added."""


@triton.jit
def _rows(experts, order, blocks, block, BM: tl.constexpr, ALONE: tl.constexpr):
    """(expert, sorted places, pairs, which are real) of a block; expert -1 where there is none."""
    m = tl.arange(0, BM)
    if ALONE:
        return tl.load(experts + block), block + m, block + m, m < 1
    expert = tl.load(blocks + block * 3)
    first, last = tl.load(blocks + block * 3 + 1), tl.load(blocks + block * 3 + 2)
    place = first + m
    real = place < last
    return expert, place, tl.load(order + place, real, 0), real


@triton.jit
def _up(x, w, weights, factors, out, experts, order, blocks, x_stride, E: tl.constexpr, I: tl.constexpr,  # noqa: E741
        A: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, KIND: tl.constexpr,
        GATED: tl.constexpr, ALONE: tl.constexpr, TURNED: tl.constexpr, FOLDED: tl.constexpr):  # fmt: skip
    follow()
    expert, place, pair, real = _rows(experts, order, blocks, tl.program_id(0), BM, ALONE)
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
    if ALONE:  # the sum over experts is one product then
        y *= tl.load(weights + pair, real, 0.0)[:, None]
    spot = out + place[:, None].to(tl.int64) * I + n[None, :]
    tl.store(spot, y.to(out.dtype.element_ty), real[:, None] & (n[None, :] < I))


@triton.jit
def _down_alone(h, w, experts, hidden, norm, out, scaled, sums, T, E: tl.constexpr, I: tl.constexpr,  # noqa: E741
                A: tl.constexpr, BN: tl.constexpr, KP: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """One token: its experts' weights as one matrix, side by side."""
    token, tile = tl.program_id(0), tl.program_id(1)
    lead()
    n, k = tile * BN + tl.arange(0, BN), tl.arange(0, KP)
    # why: the kernel before the last one chose, so choice and weights are there before `follow`
    expert = tl.load(experts + token * A + k // I, k < A * I, 0).to(tl.int64)
    spot = expert[None, :] * (E * I) + n[:, None].to(tl.int64) * I + (k % I)[None, :]
    weight = tl.load(w + spot, (n[:, None] < E) & (k[None, :] < A * I), 0.0, eviction_policy="evict_first")
    after = tl.load(norm + n, n < E, 0.0) if ADD else 0.0
    behind()
    at = token * E + n
    stream = tl.load(hidden + at, n < E, 0.0) if ADD else 0.0
    row = tl.load(h + token * (A * I) + k, k < A * I, 0.0).to(tl.float32)
    y = tl.sum(weight.to(tl.float32) * row[None, :], 1).to(out.dtype.element_ty)
    if ADD:
        y = add_onto(y, stream, after, scaled, sums + tile * T + token, at, n < E)
    tl.store(out + at, y, n < E)


@triton.jit
def _down(h, w, weights, out, order, blocks, E: tl.constexpr, I: tl.constexpr, BM: tl.constexpr,  # noqa: E741
          BN: tl.constexpr, BK: tl.constexpr, TURNED: tl.constexpr):  # fmt: skip
    follow()
    expert, place, pair, real = _rows(order, order, blocks, tl.program_id(0), BM, False)
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
    y = acc * tl.load(weights + pair, real, 0.0)[:, None]
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
    args = (x_TE, weights_TA, experts_TA, up_XJE, down_XEI)
    pairs, num = experts_TA.numel(), up_XJE.shape[0]
    if pairs >= _MANY * num and up_XJE.shape[1] == 2 * down_XEI.shape[2]:
        hopper = hopper_products()
        if hopper is not None and hopper.can(x_TE, up_XJE, down_XEI, act):
            return by_hopper(*args)
        if x_TE.dtype is torch.bfloat16 and up_XJE.shape[2] % 8 == 0 and down_XEI.shape[2] % 8 == 0:
            return by_library(*args, act)
    return grouped(*args, act, tiles(pairs, num, x_TE.dtype))


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
    z = tiles(1 << 20, 1, x_TE.dtype)
    return grouped(x_TE, weights_TA, experts_TA, up_XJE, down_XEI, act, z, x_TE.dtype)


Choice = tuple[torch.Tensor, torch.Tensor]
"""Weights and experts of each token."""


def grouped(
    x: torch.Tensor,
    weights: torch.Tensor,
    chosen: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    act: str,
    z: Tiles,
    kept: torch.dtype | None = None,
) -> torch.Tensor:
    """The kernels of this file with tiles of one's own choice. `kept`: the dtype of results before their sum."""
    return _grouped(x, (weights, chosen), up, down, act, z, None, None, kept)[0]


@folded_experts.kernel("triton", when=may_fold)
def folded_experts_triton(
    f: Folded,
    factor_T: torch.Tensor,
    weights_TA: torch.Tensor,
    experts_TA: torch.Tensor,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
    weight_E: torch.Tensor,
) -> Folded:
    """See the op; the sum takes the place of h."""
    z, choice = tiles(experts_TA.numel(), up_XJE.shape[0], f.hidden.dtype), (weights_TA, experts_TA)
    return Folded(*_grouped(f.scaled, choice, up_XJE, down_XEI, act, z, factor_T, (f.hidden, weight_E)))


def _grouped(
    x: torch.Tensor,
    choice: Choice,
    up: torch.Tensor,
    down: torch.Tensor,
    act: str,
    z: Tiles,
    factor: torch.Tensor | None,
    onto: Onto | None,
    kept: torch.dtype | None = None,
) -> Ends:
    """`factor`: of the rows' folded norm."""
    weights, chosen = choice
    if z.rows_alone >= chosen.numel():
        return down_alone(up_product(x, up, down.shape[2], choice, None, act, z, factor), down, chosen, z, onto)
    s = sort(chosen, down.shape[0], z.bm)
    h = up_product(x, up, down.shape[2], choice, s, act, z, factor)
    return joined(down_product(h, down, weights, s, z, kept), weights, s.place, chosen.shape[0], False, x.dtype, onto)


def up_product(
    x: torch.Tensor,
    up: torch.Tensor,
    inter: int,
    choice: Choice,
    s: Sorted | None,
    act: str,
    z: Tiles,
    factor: torch.Tensor | None = None,
) -> torch.Tensor:
    """act(gate) * up of every pair, in sorted order: [pairs, I]. Without an order also times the pair's weight."""
    (weights, chosen), width, t = choice, x.shape[1], z.up
    pairs, alone = chosen.numel(), s is None
    order, blocks, num = (chosen, chosen, pairs) if s is None else (s.order, s.blocks, s.num_blocks)
    h = torch.empty((pairs, inter), dtype=x.dtype, device=x.device)
    _up[(num, triton.cdiv(inter, t.bn))](
        x, up, weights, weights if factor is None else factor, h, chosen, order, blocks, x.stride(0), width, inter,
        chosen.shape[1], z.bm, t.bn, t.bk, KINDS[act], up.shape[1] == 2 * inter, alone, t.turned, factor is not None,
        num_warps=t.warps, num_stages=t.stages, **CHAINED,
    )  # fmt: skip
    return h


def down_alone(h: torch.Tensor, down: torch.Tensor, chosen: torch.Tensor, z: Tiles, onto: Onto | None = None) -> Ends:
    """The sum over each token's experts of down, from rows that are weighted: [T, E]."""
    (_, width, inter), (tokens, top_k), t = down.shape, chosen.shape, z.down
    tiles = triton.cdiv(width, t.bn)
    ends = empty_ends(onto, tokens, width, tiles, h.dtype, h.device)
    _down_alone[(tokens, tiles)](
        h, down, chosen, *(onto or ends[:2]), *ends, tokens, width, inter, top_k, t.bn,
        triton.next_power_of_2(top_k * inter), onto is not None, num_warps=t.warps, **CHAINED,
    )  # fmt: skip
    return ends


def down_product(
    h: torch.Tensor, down: torch.Tensor, weights: torch.Tensor, s: Sorted, z: Tiles, kept: torch.dtype | None = None
) -> torch.Tensor:
    """weight * down of every pair, in the order of pairs: [pairs, E]."""
    (_, width, inter), pairs, t = down.shape, h.shape[0], z.down
    kept = kept or (torch.float32 if pairs <= _EXACT_SUM else h.dtype)
    y = torch.empty((pairs, width), dtype=kept, device=h.device)
    _down[(s.num_blocks, triton.cdiv(width, t.bn))](
        h, down, weights, y, s.order, s.blocks, width, inter, z.bm, t.bn, t.bk, t.turned,
        num_warps=t.warps, num_stages=t.stages, **CHAINED,
    )  # fmt: skip
    return y
