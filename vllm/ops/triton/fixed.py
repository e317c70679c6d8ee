"""Deterministic mode on a GPU: linear maps whose every sum is taken in one order, however many tokens a step has.

    y[t, o] = one chain of tensor-core products along K, 16 values at a time, in float32; no split of K, no atomics

Which tile of the result a program makes is free: an element's chain is the same in each of them, so is the answer, to
the bit (`tests/kernels/test_triton_fixed.py`). A weight always takes the same kind of product: Hopper's warpgroups
where they fit it, else those of tiles of 64 rows. Attention: `attention_fixed.py`; experts: `moe.py`. The rest of the
kernels work row by row. Called by: layers.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from vllm.ops.linear import linear
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.linear import few
from vllm.ops.triton.linear_hopper import HAS_COPY_ENGINE
from vllm.ops.triton.tiles import Tile
from vllm.util.arith import cdiv, next_power_of_2

_FEW, _PROCESSORS = 64, 132
"""Tokens up to which weights are read as fast as memory gives them; programs that an H100 or H200 runs at once."""
_TILES = ((128, 64, 64, 4, 6, 83), (128, 128, 64, 8, 5, 143), (128, 256, 64, 8, 4, 256))
"""Rows, outputs, inputs, warps, stages, and a tile's time beside the others'. Measured on an H200, 2026-11-21."""


@triton.jit(do_not_specialize=["M"])
def _chain(x, w, out, M, x_stride, N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
           BK: tl.constexpr, COPIED: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    """A tile of the result; `COPIED`: x and w are descriptions for the copy engine."""
    # why: programs that run at once share rows and weights when they are eight rows of tiles
    tiles: tl.constexpr = (N + BN - 1) // BN
    group = tl.program_id(0) // (8 * tiles)
    rows_here = tl.minimum(tl.cdiv(M, BM) - group * 8, 8)
    place = tl.program_id(0) % (8 * tiles)
    tile, first = place // rows_here, (group * 8 + place % rows_here) * BM
    m, n, k = first + tl.arange(0, BM), tile * BN + tl.arange(0, BN), tl.arange(0, BK)
    follow()
    acc = tl.zeros((BM, BN), tl.float32)
    for i in tl.range(0, K, BK, num_stages=STAGES):
        if COPIED:
            rows, weight = x.load([first, i]), w.load([tile * BN, i])
        else:
            there = i + k[None, :] < K
            rows = tl.load(x + m[:, None].to(tl.int64) * x_stride + i + k[None, :], (m[:, None] < M) & there, 0.0)
            weight = tl.load(w + n[:, None].to(tl.int64) * K + i + k[None, :], (n[:, None] < N) & there, 0.0)
        acc = tl.dot(rows, tl.trans(weight), acc, input_precision="ieee")
    spot = out + m[:, None].to(tl.int64) * N + n[None, :]
    tl.store(spot, acc.to(out.dtype.element_ty), (m[:, None] < M) & (n[None, :] < N))


def is_fixed(target: Target) -> bool:
    """A GPU in deterministic mode."""
    return target.device == "cuda" and target.deterministic and target.capability >= (8, 0)


@linear.kernel("fixed", when=is_fixed, rank=2)
def linear_fixed(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """As the reference; the bias is added to what has been rounded."""
    assert isinstance(packed, torch.Tensor)
    y = product(x_TE, packed)
    return y if bias_O is None else y.add_(bias_O)


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W^T, by whichever tiles are fast for so many rows."""
    (rows, inputs), outputs = x.shape, weight.shape[0]
    half = x.dtype is not torch.float32
    wide = HAS_COPY_ENGINE and half and inputs % 128 == 0 and outputs % 64 == 0
    x = x if x.stride(1) == 1 and (not wide or x.stride(0) % 8 == 0) else x.contiguous()
    if wide and (rows <= _FEW // 2 or (rows <= _FEW and outputs > 8192)):
        each = (64 + max(8, next_power_of_2(rows))) * 128 * 2
        return few(x, weight, Tile(64, 128, 1, min(11, (200 << 10) // each), 4, "hopper"))
    return chain(x, weight, *_tile(rows, outputs, wide, half), copied=wide)


def _tile(rows: int, outputs: int, wide: bool, half: bool) -> tuple[int, int, int, int, int]:
    """(rows, outputs, inputs of a tile, warps, stages). Only where `wide` may it depend on the number of rows."""
    if not wide:
        return (64, 64, 64 if half else 32, 4, 3 if half else 2)
    if rows <= _FEW:
        return (64, 32, 128, 4, 6)

    def time(tile: tuple[int, ...]) -> int:
        return cdiv(cdiv(rows, tile[0]) * cdiv(outputs, tile[1]), _PROCESSORS) * tile[-1]

    return min(_TILES, key=time)[:5]


def chain(
    x: torch.Tensor, weight: torch.Tensor, bm: int, bn: int, bk: int, warps: int, stages: int, copied: bool
) -> torch.Tensor:
    """The kernel of this file."""
    (rows, inputs), outputs = x.shape, weight.shape[0]
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    two = (x, weight)
    if copied:
        two = TensorDescriptor.from_tensor(x, [bm, bk]), TensorDescriptor.from_tensor(weight, [bn, bk])
    _chain[(cdiv(outputs, bn) * cdiv(rows, bm),)](
        *two, out, rows, x.stride(0), outputs, inputs, bm, bn, bk, copied, stages, num_warps=warps, num_stages=stages,
        **CHAINED,
    )  # fmt: skip
    return out
