"""Choosing experts on a GPU: the router's product in float32, then the best of each token with their weights.

    few tokens    the product is split along its columns; then a program a token, or (`pick`) a program an expert, which
                  sorts too
    many          one product; four tokens a program. Very many: both at once, and pairs are counted for the sort
Called by: layers, moe.
"""

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vllm.ops.moe import choose
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, behind, follow, lead
from vllm.ops.triton.moe_sort import CHUNK
from vllm.util.arith import cdiv, next_power_of_2


@triton.jit
def _logits(x, w, out, T, x_stride, E: tl.constexpr, X: tl.constexpr, BT: tl.constexpr, BX: tl.constexpr,
            BE: tl.constexpr, SPLITS: tl.constexpr):  # fmt: skip
    """A share of the router's product, in float32."""
    lead()
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    e, split = tl.program_id(1) * BX + tl.arange(0, BX), tl.program_id(2)
    share: tl.constexpr = (E + BE * SPLITS - 1) // (BE * SPLITS)
    acc = tl.zeros((BT, BX), tl.float32)
    first = w + e[None, :] * E + (split * share * BE + tl.arange(0, BE))[:, None]
    if share == 1:
        # why: weights depend on nobody, so they are on their way before the turn
        weight = tl.load(first, (e[None, :] < X) & ((split * BE + tl.arange(0, BE))[:, None] < E), 0.0)
    behind()
    for i in range(share):
        at = (split * share + i) * BE + tl.arange(0, BE)
        row = tl.load(x + t[:, None].to(tl.int64) * x_stride + at[None, :], (t[:, None] < T) & (at[None, :] < E), 0.0)
        if share > 1:
            weight = tl.load(first + i * BE, (e[None, :] < X) & (at[:, None] < E), 0.0)
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
def _pick(logits, squares, factors, weights, order, counts, T, eps, E: tl.constexpr, X: tl.constexpr, XP: tl.constexpr,
          TP: tl.constexpr, A: tl.constexpr, SPLITS: tl.constexpr, FOLDED: tl.constexpr, FP: tl.constexpr,
          RENORMALIZE: tl.constexpr, ALONE: tl.constexpr):  # fmt: skip
    """One program per expert, which ranks itself alone among the experts of each token; nobody sees all ranks.

    It writes its pairs in the order of tokens, or where pairs stay `ALONE` its name to each of them. `RENORMALIZE`:
    weights are not divided by their sum, which no program knows.
    """
    e = tl.program_id(0)
    t, x = tl.arange(0, TP), tl.arange(0, XP)
    follow()
    value = tl.zeros((TP, XP), tl.float32)
    for s in tl.static_range(SPLITS):
        spot = logits + (s * T + t[:, None]) * X + x[None, :]
        value += tl.load(spot, (t[:, None] < T) & (x[None, :] < X), 0.0)
    if FOLDED:
        s = tl.arange(0, FP)
        total = tl.load(squares + s[:, None] * T + t[None, :], (s[:, None] < FOLDED) & (t[None, :] < T), 0.0)
        factor = tl.rsqrt(tl.sum(total, 0) / E + eps)
        tl.store(factors + t, factor, (t < T) & (e == 0))
        value *= factor[:, None]
    value = tl.where(x[None, :] < X, tl.where(value == value, value, -3e38), float("-inf"))
    mine = tl.sum(tl.where(x[None, :] == e, value, 0.0), 1)
    before = (value > mine[:, None]) | ((value == mine[:, None]) & (x[None, :] < e))
    rank = tl.sum(before.to(tl.int32), 1)
    best = tl.max(value, 1)
    chance = tl.exp(mine - best)
    if not RENORMALIZE:
        chance /= tl.sum(tl.exp(value - best[:, None]), 1)
    picked = (rank < A) & (t < T)
    pair = t * A + rank
    tl.store(weights + pair, chance, picked)
    if ALONE:
        tl.store(order + pair, t * 0 + e, picked)
    else:
        tl.store(order + e * T + tl.cumsum(picked.to(tl.int32), 0) - 1, pair, picked)
        tl.store(counts + e, tl.sum(picked.to(tl.int32), 0))


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
def _choose_many(x, w, weights, experts, counts, T, x_stride, E: tl.constexpr, X: tl.constexpr, XP: tl.constexpr,
                 A: tl.constexpr, AP: tl.constexpr, RENORMALIZE: tl.constexpr, BT: tl.constexpr,
                 BE: tl.constexpr):  # fmt: skip
    """Product and choice of BT tokens in one; also how many of their pairs each expert has."""
    t = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    e, a, k = tl.arange(0, XP), tl.arange(0, AP), tl.arange(0, BE)
    follow()
    value = tl.zeros((BT, XP), tl.float32)
    for i in range(0, E, BE):
        row = tl.load(x + t[:, None] * x_stride + (i + k)[None, :], (t[:, None] < T) & ((i + k)[None, :] < E), 0.0)
        weight = tl.load(w + e[None, :] * E + (i + k)[:, None], (e[None, :] < X) & ((i + k)[:, None] < E), 0.0)
        value = tl.dot(row.to(weight.dtype), weight, value, input_precision="ieee")
    # why: what is chosen becomes -inf, so nothing else may be
    value = tl.where(value > -3e38, value, -3e38)
    value = tl.where(e[None, :] < X, value, float("-inf"))
    best = tl.max(value, 1)
    total = tl.sum(tl.exp(value - best[:, None]), 1)
    mine = tl.full((BT, AP), float("-inf"), tl.float32)
    ids = tl.zeros((BT, AP), tl.int32)
    for i in tl.static_range(A):
        top = tl.max(value, 1)
        at = tl.min(tl.where(value == top[:, None], e[None, :], XP), 1)
        mine = tl.where(a[None, :] == i, top[:, None], mine)
        ids = tl.where(a[None, :] == i, at[:, None], ids)
        value = tl.where(e[None, :] == at[:, None], float("-inf"), value)
    chance = tl.exp(mine - best[:, None])
    if RENORMALIZE:
        total = tl.sum(chance, 1)
    spot, real = t[:, None] * A + a[None, :], (t[:, None] < T) & (a[None, :] < A)
    tl.store(weights + spot, chance / total[:, None], real)
    tl.store(experts + spot, ids, real)
    picked = (value == float("-inf")) & (e[None, :] < X) & (t[:, None] < T)
    tl.store(counts + tl.program_id(0) * XP + e, tl.sum(picked.to(tl.int32), 0))


def can(target: Target) -> bool:
    """Whether kernels for experts run there."""
    return target.device == "cuda" and target.capability >= (8, 0)


@choose.kernel("triton", when=can, pack=lambda router_XE: router_XE)
def choose_triton(
    x_TE: torch.Tensor, packed: object, top_k: int, renormalize: bool, fixed: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the op. Experts are int32. `fixed`: as for few tokens, however many there are."""
    return chosen(x_TE, packed, top_k, renormalize, None, 0.0, fixed)[:2]


def may_fold(target: Target) -> bool:
    """Whether norms may be folded into them."""
    return can(target) and not target.deterministic and target.dtype is torch.bfloat16


@dataclass(slots=True)
class Picked:
    """(token, expert) pairs as they are for few tokens: each expert's, or each alone."""

    weights: torch.Tensor
    """[T, A] float32: of pairs, to be divided by their sum if `renormalize`."""
    order: torch.Tensor
    """[X, T] int32: the pairs of an expert; alone [T, A]: the expert of a pair."""
    counts: torch.Tensor
    """[X] int32: of an expert's pairs; nothing where they are alone."""
    factors: torch.Tensor | None
    """[T] float32: of a folded norm."""
    renormalize: bool
    alone: bool

    @property
    def pairs(self) -> int:
        """How many there are."""
        return self.weights.numel()


def can_pick(tokens: int, num: int) -> bool:
    """Whether tokens are few, and a program can hold the values of them all."""
    return tokens <= 128 and next_power_of_2(tokens) * next_power_of_2(num) <= 1 << 14


def pick(
    x: torch.Tensor,
    router: torch.Tensor,
    top_k: int,
    renormalize: bool,
    alone: bool,
    squares: torch.Tensor | None = None,
    eps: float = 0.0,
) -> Picked:
    """Choose for all of few tokens, and sort by expert. `squares`: of the folded norm before."""
    (tokens, width), num = x.shape, router.shape[0]
    splits = 8 if tokens <= 4 else 4 if tokens <= 32 else 2
    logits = _product(x, router, splits, 16, 16, 256)
    weights = torch.empty((tokens, top_k), dtype=torch.float32, device=x.device)
    factors = None if squares is None else torch.empty(tokens, dtype=torch.float32, device=x.device)
    order = torch.empty((tokens, top_k) if alone else (num, tokens), dtype=torch.int32, device=x.device)
    counts = torch.empty(num, dtype=torch.int32, device=x.device)
    high, wide = next_power_of_2(tokens), next_power_of_2(num)
    shares = 0 if squares is None else squares.shape[0]
    _pick[(num,)](
        logits, logits if squares is None else squares, weights if factors is None else factors, weights, order, counts,
        tokens, eps, width, num, wide, high, top_k, splits, shares, next_power_of_2(max(1, shares)), renormalize,
        alone, num_warps=8 if high * wide > 1 << 13 else 4, **CHAINED,
    )  # fmt: skip
    return Picked(weights, order, counts, factors, renormalize, alone)


def _product(x: torch.Tensor, router: torch.Tensor, splits: int, bt: int, bx: int, be: int) -> torch.Tensor:
    (tokens, width), num = x.shape, router.shape[0]
    logits = torch.empty((splits, tokens, num), dtype=torch.float32, device=x.device)
    bx = min(bx, max(16, next_power_of_2(num)))
    grid = (cdiv(tokens, bt), cdiv(num, bx), splits)
    _logits[grid](
        x, router, logits, tokens, x.stride(0), width, num, bt, bx, be, splits, num_warps=4, num_stages=3, **CHAINED
    )
    return logits


def chosen(
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
    sizes = (16, 16, 256) if few else (32, 32, 128) if tokens <= 2048 else (64, 128, 64)
    logits, wide = _product(x_TE, packed, splits, *sizes), next_power_of_2(num)
    weights = torch.empty((tokens, top_k), dtype=torch.float32, device=x_TE.device)
    ids = torch.empty((tokens, top_k), dtype=torch.int32, device=x_TE.device)
    if splits == 1:
        _top_many[(cdiv(tokens, 4),)](
            logits, weights, ids, tokens, num, wide, top_k, next_power_of_2(top_k), renormalize, 4, num_warps=4,
            **CHAINED,
        )  # fmt: skip
        assert squares is None, "norms are folded for few tokens only"
        return weights, ids, weights
    factors = torch.empty(tokens, dtype=torch.float32, device=x_TE.device)
    shares = 0 if squares is None else squares.shape[0]
    _top[(tokens,)](
        logits, logits if squares is None else squares, factors, weights, ids, tokens, eps, width, num, wide, top_k,
        splits, shares, next_power_of_2(max(1, shares)), renormalize, num_warps=4, **CHAINED,
    )  # fmt: skip
    return weights, ids, factors


def choose_many(
    x: torch.Tensor, router: torch.Tensor, top_k: int, renormalize: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, experts and how many pairs each expert has in each chunk of tokens. For at most 128 experts."""
    (tokens, width), num = x.shape, router.shape[0]
    wide, chunks = max(16, next_power_of_2(num)), cdiv(tokens, CHUNK)
    weights = torch.empty((tokens, top_k), dtype=torch.float32, device=x.device)
    ids = torch.empty((tokens, top_k), dtype=torch.int32, device=x.device)
    counts = torch.empty((chunks, wide), dtype=torch.int32, device=x.device)
    _choose_many[(chunks,)](
        x, router, weights, ids, counts, tokens, x.stride(0), width, num, wide, top_k, next_power_of_2(top_k),
        renormalize, CHUNK, 64, num_warps=8, num_stages=4 if x.element_size() == 2 else 2, **CHAINED,
    )  # fmt: skip
    return weights, ids, counts


def is_fixed(target: Target) -> bool:
    """Whether every sum has to keep its order."""
    return can(target) and target.deterministic


choose.kernel("fixed", when=is_fixed, rank=2, pack=lambda router_XE: router_XE)(
    functools.partial(choose_triton, fixed=True)
)
