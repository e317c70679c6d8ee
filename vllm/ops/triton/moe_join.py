"""The last step of experts on a GPU: a token's experts are added in their order, or onto the stream with a norm behind.

That norm is folded into the maps behind it for few tokens (`ops/fold.py`), and whole for others (`_join_norm`).

Called by: moe, moe_many.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.moe import Apart, add_apart_rms_norm
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.norm import warps_of
from vllm.util.arith import cdiv, next_power_of_2

Onto = tuple[torch.Tensor, torch.Tensor]
"""The stream that the result is added to, and the weight of the norm behind."""
Ends = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The result, or with an `Onto` what a `Folded` holds."""


@triton.jit
def add_onto(y, stream, after, scaled, sums, at, there):
    """A part of a row added to the stream; also what the next norm needs of it."""
    y = y + stream
    wide = tl.where(there, y.to(tl.float32), 0.0)
    tl.store(scaled + at, (wide * after).to(y.dtype), there)
    tl.store(sums, tl.sum(wide * wide, 0))
    return y


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
        value = add_onto(value, stream, after, scaled, sums + tl.program_id(1) * tl.num_programs(0) + token, at, e < E)
    tl.store(out + at, value, e < E)


@triton.jit
def _join_norm(y, weights, place, residual, norm, out, r_stride, eps, E: tl.constexpr, EP: tl.constexpr,
               A: tl.constexpr, SORTED: tl.constexpr, WEIGHT: tl.constexpr):  # fmt: skip
    """`_join` of a whole row, added to the residual, with the norm behind: the same bits as one after the other."""
    token = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EP)
    follow()
    stream = tl.load(residual + token * r_stride + e, e < E, 0.0)
    acc = tl.zeros((EP,), tl.float32)
    for a in tl.static_range(A):
        pair = token * A + a
        if SORTED:
            row = tl.load(y + tl.load(place + pair).to(tl.int64) * E + e, e < E, 0.0).to(tl.float32)
            acc += row * tl.load(weights + pair)
        else:
            acc += tl.load(y + pair * E + e, e < E, 0.0).to(tl.float32)
    value = acc.to(residual.dtype.element_ty) + stream
    tl.store(residual + token * r_stride + e, value, e < E)
    wide = value.to(tl.float32)
    z = wide * tl.rsqrt(tl.sum(wide * wide, 0) / E + eps)
    if WEIGHT:
        z = z * tl.load(norm + e, e < E, 0.0)
    tl.store(out + token * E + e, z.to(out.dtype.element_ty), e < E)


def _can(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (8, 0) and not target.deterministic


@add_apart_rms_norm.kernel("triton", when=_can)
def add_apart_rms_norm_triton(
    a: Apart, residual: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the op; the sum takes the residual's place."""
    tokens, width = residual.shape
    out = torch.empty((tokens, width), dtype=residual.dtype, device=residual.device)
    _join_norm[(tokens,)](
        a.results_PE, a.weights_TA, a.results_PE if a.place_P is None else a.place_P, residual,
        residual if weight is None else weight, out, residual.stride(0), eps, width, next_power_of_2(width),
        a.weights_TA.shape[1], a.place_P is not None, weight is not None, num_warps=warps_of(width), **CHAINED,
    )  # fmt: skip
    return residual, out


def empty_ends(
    onto: Onto | None, tokens: int, width: int, shares: int, dtype: torch.dtype, device: torch.device
) -> Ends:
    """Memory for the result; `shares`: of a token's sum of squares."""
    if onto is None:
        out = torch.empty((tokens, width), dtype=dtype, device=device)
        return out, out, out
    return onto[0], torch.empty_like(onto[0]), torch.empty((shares, tokens), dtype=torch.float32, device=device)


def joined(a: Apart, dtype: torch.dtype, onto: Onto | None) -> Ends:
    """Every token's experts added."""
    (tokens, top_k), width = a.weights_TA.shape, a.results_PE.shape[1]
    block = min(1024 if tokens > 64 else 256, next_power_of_2(width))
    shares = cdiv(width, block)
    ends = empty_ends(onto, tokens, width, shares, dtype, a.results_PE.device)
    _join[(tokens, shares)](
        a.results_PE, a.weights_TA, a.weights_TA if a.place_P is None else a.place_P, *(onto or ends[:2]), *ends, width,
        top_k, block, a.place_P is not None, onto is not None, num_warps=4 if block > 256 else 1, **CHAINED,
    )  # fmt: skip
    return ends
