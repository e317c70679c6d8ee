"""Linear maps of few rows on a GPU: weights are read once, at the speed of memory; many rows go to the library.

    program (tile of outputs, share of K): a part of x W^T in float32 ─▶ the last program of a tile adds the parts

The parts are added in a fixed order, so a result does not depend on who came last. Tiles were chosen on an H200.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from vllm.ops.linear import linear
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow, tickets

_SMALL, _MEDIUM = 1 << 23, 1 << 24
"""Weights up to these sizes leave the library waiting: for 32 rows, and for 16. Larger ones keep it at full speed."""


@triton.jit
def _skinny(x, w, bias, out, parts, tickets, M, x_stride, N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr,
            BN: tl.constexpr, BK: tl.constexpr, SPLITS: tl.constexpr, BIAS: tl.constexpr):  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    m, n, k = tl.arange(0, BM), tile * BN + tl.arange(0, BN), tl.arange(0, BK)
    share: tl.constexpr = (K + BK * SPLITS - 1) // (BK * SPLITS)
    acc = tl.zeros((BM, BN), tl.float32)
    follow()
    for i in range(share):
        at = (split * share + i) * BK + k
        weight = tl.load(
            w + n[None, :].to(tl.int64) * K + at[:, None], (n[None, :] < N) & (at[:, None] < K), 0.0,
            eviction_policy="evict_first",
        )  # fmt: skip
        row = tl.load(x + m[:, None] * x_stride + at[None, :], (m[:, None] < M) & (at[None, :] < K), 0.0)
        acc += tl.dot(row, weight)
    there = (m[:, None] < M) & (n[None, :] < N)
    spot = m[:, None] * N + n[None, :]
    if SPLITS > 1:
        tl.store(parts + split * BM * N + spot, acc, n[None, :] < N)
        tl.debug_barrier()
        if tl.atomic_add(tickets + tile, 1) != SPLITS - 1:
            return
        tl.store(tickets + tile, 0)
        acc = tl.zeros((BM, BN), tl.float32)
        for s in tl.static_range(SPLITS):
            acc += tl.load(parts + s * BM * N + spot, n[None, :] < N, 0.0, cache_modifier=".cg")
    if BIAS:
        acc += tl.load(bias + n, n < N, 0.0).to(tl.float32)[None, :]
    tl.store(out + spot, acc.to(out.dtype.element_ty), there)


def tiles(outputs: int, inputs: int) -> tuple[int, int, int, int]:
    """(BN, BK, splits, stages) for a weight."""
    if outputs * inputs > _SMALL:
        return 32, 256, 2, 3
    splits = 1
    while splits < 4 and triton.cdiv(outputs, 32) * splits < 128 and inputs >= 512 * splits:
        splits *= 2
    return (32, 256, splits, 3) if splits < 4 else (32, 128, splits, 4)


def _when(target: Target) -> bool:
    return target.device == "cuda" and not target.deterministic and target.dtype is not torch.float32


@linear.kernel("triton", when=_when)
def linear_triton(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """See the op."""
    assert isinstance(packed, torch.Tensor)
    rows, (outputs, inputs) = x_TE.shape[0], packed.shape
    most = 32 if packed.numel() <= _SMALL else 16 if packed.numel() <= _MEDIUM else 0
    if rows > most or x_TE.dtype is torch.float32 or inputs % 8:
        return F.linear(x_TE, packed, bias_O)
    return skinny(x_TE, packed, bias_O, *tiles(outputs, inputs))


def skinny(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, bn: int, bk: int, splits: int, stages: int
) -> torch.Tensor:
    """The kernel with tiles of one's own choice."""
    rows, (outputs, inputs) = x.shape[0], weight.shape
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    height, grid = 16 if rows <= 16 else 32, (triton.cdiv(outputs, bn), splits)
    parts, waiting = out, out
    if splits > 1:
        parts = torch.empty((splits, height, outputs), dtype=torch.float32, device=x.device)
        waiting = tickets(x.device, grid[0])
    _skinny[grid](
        x, weight, bias if bias is not None else out, out, parts, waiting, rows, x.stride(0), outputs, inputs, height,
        bn, bk, splits, bias is not None, num_warps=4, num_stages=stages, **CHAINED,
    )  # fmt: skip
    return out
