"""Experts on a GPU: tokens are sorted by expert on the device, then two products read each chosen one's weights once.

    x ─ logits ─ top ─▶ weights, experts ─ sort ─▶ order, blocks         (a block: up to BM rows of one expert)
    up    grid (block, tile of I): act(gate) * up of the block's rows        both tiles of the weight in one program
    down  grid (block, tile of E): weight * down of the rows, in the order of tokens
    join  the sum over a token's experts, in their order

With few tokens every (token, expert) pair is a block of its own, nothing is sorted, and down and join are one product
whose weights are on their way before up is done; with many the products are those of `moe_hopper.py`, or the library's.
The norms around may be folded in (`ops/fold.py`). Nothing looks at the host, all shapes come from the number of tokens,
and no sum depends on who came first. Tiles are in `moe_tiles.py`.
"""

import functools
import importlib
from types import ModuleType

import torch
import triton
import triton.language as tl

from vllm.ops.fold import Folded, folded_choose, folded_experts
from vllm.ops.moe import choose, experts
from vllm.ops.table import Target
from vllm.ops.triton.activation import KINDS, activate_mul_triton, gated
from vllm.ops.triton.chain import CHAINED, IS_CHAINED, behind, follow, lead
from vllm.ops.triton.moe_sort import Sorted, sort
from vllm.ops.triton.moe_tiles import Tiles, tiles
from vllm.util.log import get_logger

log = get_logger(__name__)

_MANY = 64
"""From this many (token, expert) pairs per expert on kernels for many rows are faster."""
_EXACT_SUM = 2048
"""Up to this many pairs their results are kept in float32 until they are added."""


@triton.jit
def _logits(x, w, out, T, x_stride, E: tl.constexpr, X: tl.constexpr, BT: tl.constexpr, BX: tl.constexpr,
            BE: tl.constexpr, SPLITS: tl.constexpr):  # fmt: skip
    """A share of the router's product, in float32."""
    lead()
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    e, split = tl.program_id(1) * BX + tl.arange(0, BX), tl.program_id(2)
    share: tl.constexpr = (E + BE * SPLITS - 1) // (BE * SPLITS)
    acc = tl.zeros((BT, BX), tl.float32)
    behind()
    for i in range(share):
        at = (split * share + i) * BE + tl.arange(0, BE)
        row = tl.load(x + t[:, None].to(tl.int64) * x_stride + at[None, :], (t[:, None] < T) & (at[None, :] < E), 0.0)
        weight = tl.load(w + e[None, :] * E + at[:, None], (e[None, :] < X) & (at[:, None] < E), 0.0)
        # why: products of two bfloat16 are exact in float32, so this is the router's float32 product
        acc += tl.dot(row.to(weight.dtype), weight, input_precision="ieee")
    here = (t[:, None] < T) & (e[None, :] < X)
    tl.store(out + (split * T + t[:, None]).to(tl.int64) * X + e[None, :], acc, here)


@triton.jit
def _top(logits, squares, factors, weights, experts, T, eps, E: tl.constexpr, X: tl.constexpr, XP: tl.constexpr,
         A: tl.constexpr, SPLITS: tl.constexpr, FOLDED: tl.constexpr, FP: tl.constexpr,
         RENORMALIZE: tl.constexpr):  # fmt: skip
    """A token's experts, best first, and their weights."""
    token = tl.program_id(0).to(tl.int64)
    x = tl.arange(0, XP)
    follow()
    value = tl.zeros((XP,), tl.float32)
    for s in tl.static_range(SPLITS):
        value += tl.load(logits + (s * T + token) * X + x, x < X, 0.0)
    if FOLDED:
        s = tl.arange(0, FP)
        factor = tl.rsqrt(tl.sum(tl.load(squares + s * T + token, s < FOLDED, 0.0), 0) / E + eps)
        tl.store(factors + token, factor)
        value *= factor
    # why: NaN equals nothing and is not larger than anything, and every token must have its experts
    value = tl.where(x < X, tl.where(value == value, value, -3e38), float("-inf"))
    chance = tl.exp(value - tl.max(value, 0))
    total = tl.sum(chance, 0)
    # why: ranks need no round after round of reductions; of equals the first comes first
    before = (value[None, :] > value[:, None]) | ((value[None, :] == value[:, None]) & (x[None, :] < x[:, None]))
    rank = tl.sum(before.to(tl.int32), 1)
    if RENORMALIZE:
        total = tl.sum(tl.where(rank < A, chance, 0.0), 0)
    tl.store(weights + token * A + rank, chance / total, rank < A)
    tl.store(experts + token * A + rank, x, rank < A)


@triton.jit
def _top_many(logits, weights, experts, T, X: tl.constexpr, XP: tl.constexpr, A: tl.constexpr, AP: tl.constexpr,
              RENORMALIZE: tl.constexpr, BT: tl.constexpr):  # fmt: skip
    """The same for BT tokens at once, round after round: less work, more waiting."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    x, a = tl.arange(0, XP), tl.arange(0, AP)
    follow()
    there = (t[:, None] < T) & (x[None, :] < X)
    value = tl.load(logits + t[:, None] * X + x[None, :], there, 0.0)
    value = tl.where(x[None, :] < X, tl.where(value == value, value, -3e38), float("-inf"))
    best = tl.max(value, 1)
    total = tl.sum(tl.exp(value - best[:, None]), 1)
    mine = tl.full((BT, AP), float("-inf"), tl.float32)
    ids = tl.zeros((BT, AP), tl.int32)
    for i in tl.static_range(A):
        top = tl.max(value, 1)
        at = tl.min(tl.where(value == top[:, None], x[None, :], XP), 1)
        mine = tl.where(a[None, :] == i, top[:, None], mine)
        ids = tl.where(a[None, :] == i, at[:, None], ids)
        value = tl.where(x[None, :] == at[:, None], float("-inf"), value)
    chance = tl.exp(mine - best[:, None])
    if RENORMALIZE:
        total = tl.sum(chance, 1)
    spot, real = t[:, None] * A + a[None, :], (t[:, None] < T) & (a[None, :] < A)
    tl.store(weights + spot, chance / total[:, None], real)
    tl.store(experts + spot, ids, real)


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
        y = _onto(y, stream, after, scaled, sums + tile * T + token, at, n < E)
    tl.store(out + at, y, n < E)


@triton.jit
def _onto(y, stream, after, scaled, sums, at, there):
    """A part of a row added to the stream; also what the next norm needs of it."""
    y = y + stream
    wide = tl.where(there, y.to(tl.float32), 0.0)
    tl.store(scaled + at, (wide * after).to(y.dtype), there)
    tl.store(sums, tl.sum(wide * wide, 0))
    return y


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


@triton.jit
def _join(y, weights, place, hidden, norm, out, scaled, sums, E: tl.constexpr, A: tl.constexpr, BLOCK: tl.constexpr,
          SORTED: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """Sum over a token's experts; `SORTED`: y is in sorted order and not weighted yet."""
    token = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    follow()
    at = token * E + e
    if ADD:
        stream, after = tl.load(hidden + at, e < E, 0.0), tl.load(norm + e, e < E, 0.0)
    acc = tl.zeros((BLOCK,), tl.float32)
    for a in tl.static_range(A):
        pair = token * A + a
        if SORTED:
            row = tl.load(y + tl.load(place + pair).to(tl.int64) * E + e, e < E, 0.0).to(tl.float32)
            acc += row * tl.load(weights + pair)
        else:
            acc += tl.load(y + pair * E + e, e < E, 0.0).to(tl.float32)
    value = acc.to(out.dtype.element_ty)
    if ADD:
        value = _onto(value, stream, after, scaled, sums + tl.program_id(1) * tl.num_programs(0) + token, at, e < E)
    tl.store(out + at, value, e < E)


@triton.jit
def _spread(x, place, out, x_stride, E: tl.constexpr, A: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of tokens in sorted order: each is read once and written for each of its experts."""
    token = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    follow()
    row = tl.load(x + token * x_stride + e, e < E, 0.0)
    for a in tl.static_range(A):
        tl.store(out + tl.load(place + token * A + a).to(tl.int64) * E + e, row, e < E)


def _can(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (8, 0)


@choose.kernel("triton", when=_can, pack=lambda router_XE: router_XE)
def choose_triton(
    x_TE: torch.Tensor, packed: object, top_k: int, renormalize: bool, fixed: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the op. Experts are int32. `fixed`: as for few tokens, however many there are."""
    return _chosen(x_TE, packed, top_k, renormalize, None, 0.0, fixed)[:2]


def _may_fold(target: Target) -> bool:
    return _can(target) and not target.deterministic and target.dtype is torch.bfloat16


@folded_choose.kernel("triton", when=_may_fold)
def folded_choose_triton(
    f: Folded, eps: float, packed: object, top_k: int, renormalize: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See the op, for at most 128 tokens."""
    return _chosen(f.scaled, packed, top_k, renormalize, f.squares, eps)


def _chosen(
    x_TE: torch.Tensor,
    packed: object,
    top_k: int,
    renormalize: bool,
    squares: torch.Tensor | None,
    eps: float,
    fixed: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, experts and, with `squares` of a folded norm, factors."""
    assert isinstance(packed, torch.Tensor)
    (tokens, width), num = x_TE.shape, packed.shape[0]
    few = fixed or tokens <= 32
    splits = 8 if few else 2 if tokens <= 128 else 1
    logits = torch.empty((splits, tokens, num), dtype=torch.float32, device=x_TE.device)
    bt, bx, be = (16, 16, 256) if few else (32, 32, 128) if tokens <= 2048 else (64, 128, 64)
    bx = min(bx, max(16, triton.next_power_of_2(num)))
    grid = (triton.cdiv(tokens, bt), triton.cdiv(num, bx), splits)
    _logits[grid](
        x_TE, packed, logits, tokens, x_TE.stride(0), width, num, bt, bx, be, splits, num_warps=4, num_stages=3,
        **CHAINED,
    )  # fmt: skip
    weights = torch.empty((tokens, top_k), dtype=torch.float32, device=x_TE.device)
    ids = torch.empty((tokens, top_k), dtype=torch.int32, device=x_TE.device)
    wide = triton.next_power_of_2(num)
    if splits == 1:
        _top_many[(triton.cdiv(tokens, 4),)](
            logits, weights, ids, tokens, num, wide, top_k, triton.next_power_of_2(top_k), renormalize, 4, num_warps=4,
            **CHAINED,
        )  # fmt: skip
        assert squares is None, "norms are folded for few tokens only"
        return weights, ids, weights
    factors = torch.empty(tokens, dtype=torch.float32, device=x_TE.device)
    shares = 0 if squares is None else squares.shape[0]
    _top[(tokens,)](
        logits, logits if squares is None else squares, factors, weights, ids, tokens, eps, width, num, wide, top_k,
        splits, shares, triton.next_power_of_2(max(1, shares)), renormalize, num_warps=4, **CHAINED,
    )  # fmt: skip
    return weights, ids, factors


@experts.kernel("triton", when=_can)
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


def _fixed(target: Target) -> bool:
    return _can(target) and target.deterministic


choose.kernel("fixed", when=_fixed, rank=2, pack=lambda router_XE: router_XE)(
    functools.partial(choose_triton, fixed=True)
)


@experts.kernel("fixed", when=_fixed, rank=2)
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


@functools.cache
def hopper_products() -> ModuleType | None:
    """The products for Hopper's warpgroups, where there is such a chip and this Triton can compile them."""
    if not IS_CHAINED or torch.cuda.get_device_capability()[0] != 9:
        return None
    try:
        module = importlib.import_module("vllm.ops.triton.moe_hopper")
        module.try_out()
    except Exception as error:  # why: Gluon is experimental, and the library's product serves without it
        log.warning("experts run on the library's products, which are slower: %s", error)
        return None
    return module


Choice = tuple[torch.Tensor, torch.Tensor]
"""Weights and experts of each token."""
Onto = tuple[torch.Tensor, torch.Tensor]
"""The stream that the result is added to, and the weight of the norm behind."""
Ends = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The result, or with an `Onto` what a `Folded` holds."""


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


@folded_experts.kernel("triton", when=_may_fold)
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
    return _joined(down_product(h, down, weights, s, z, kept), weights, s.place, chosen.shape[0], False, x.dtype, onto)


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
    ends = _ends(onto, tokens, width, tiles, h.dtype, h.device)
    _down_alone[(tokens, tiles)](
        h, down, chosen, *(onto or ends[:2]), *ends, tokens, width, inter, top_k, t.bn,
        triton.next_power_of_2(top_k * inter), onto is not None, num_warps=t.warps, **CHAINED,
    )  # fmt: skip
    return ends


def _ends(onto: Onto | None, tokens: int, width: int, shares: int, dtype: torch.dtype, device: torch.device) -> Ends:
    if onto is None:
        out = torch.empty((tokens, width), dtype=dtype, device=device)
        return out, out, out
    return onto[0], torch.empty_like(onto[0]), torch.empty((shares, tokens), dtype=torch.float32, device=device)


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


def _joined(
    y: torch.Tensor,
    weights: torch.Tensor,
    place: torch.Tensor,
    tokens: int,
    is_sorted: bool,
    dtype: torch.dtype,
    onto: Onto | None,
) -> Ends:
    width = y.shape[1]
    block = min(1024 if tokens > 64 else 256, triton.next_power_of_2(width))
    shares = triton.cdiv(width, block)
    ends = _ends(onto, tokens, width, shares, dtype, y.device)
    _join[(tokens, shares)](
        y, weights, place, *(onto or ends[:2]), *ends, width, weights.shape[1], block, is_sorted, onto is not None,
        num_warps=4 if block > 256 else 1, **CHAINED,
    )  # fmt: skip
    return ends


def _spread_rows(x: torch.Tensor, s: Sorted, top_k: int) -> torch.Tensor:
    tokens, width = x.shape
    rows = torch.empty((tokens * top_k, width), dtype=x.dtype, device=x.device)
    block = min(2048, triton.next_power_of_2(width))
    grid = (tokens, triton.cdiv(width, block))
    _spread[grid](x, s.place, rows, x.stride(0), width, top_k, block, num_warps=4, **CHAINED)
    return rows


def by_hopper(
    x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor, up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Rows are copied into sorted order; up makes silu(gate) * up in one pass."""
    hopper = hopper_products()
    assert hopper is not None
    s = sort(chosen, up.shape[0], hopper.ROWS)
    h = hopper.product(_spread_rows(x, s, chosen.shape[1]), up, s, True)
    return _joined(hopper.product(h, down, s, False), weights, s.place, chosen.shape[0], True, x.dtype, None)[0]


def by_library(
    x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor, up: torch.Tensor, down: torch.Tensor, act: str
) -> torch.Tensor:
    """The same with torch's grouped product."""
    s = sort(chosen, up.shape[0], 128)
    rows = _spread_rows(x, s, chosen.shape[1])
    h = activate_mul_triton(torch._grouped_mm(rows, up.transpose(1, 2), offs=s.ends), act)
    y = torch._grouped_mm(h, down.transpose(1, 2), offs=s.ends)
    return _joined(y, weights, s.place, chosen.shape[0], True, x.dtype, None)[0]
