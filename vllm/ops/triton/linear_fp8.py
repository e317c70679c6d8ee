"""fp8 linear maps on a GPU: few rows at the speed of memory, many rows at that of the tensor cores.

    few    program (tile of weight rows, share of K, tile of tokens): W x^T, so that the tall side of a tensor-core
           product is the weight's and 16 tokens fill the other; the last program of a tile adds the shares, in order
    many   rows with scales of their own: the library (`torch._scaled_mm`); blocks: a product of tiles

Before it waits for the kernel in front a program asks for its first weights, which nobody writes: they are on their way
into the cache while the input is still being made. Tiles come from a table (linear_fp8_tiles.py, made on an H200).
"""

import torch
import triton
import triton.language as tl

from vllm.ops.linear_fp8 import Fp8Weight, linear_fp8, linear_fp8_block
from vllm.ops.quantize import Quantized
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, IS_CHAINED, follow, tickets
from vllm.ops.triton.linear_fp8_tiles import Tile, tile_of
from vllm.ops.triton.quantize import quantize_triton
from vllm.util.arith import cdiv, next_power_of_2

_LINE = 128
"""Bytes that one request brings into the cache."""
_PREFETCHES = tl.constexpr(IS_CHAINED)
_MANY = (64, 128, 4, 4)
"""Tile, warps and stages of `many`: the best of four on an H200."""


@triton.jit
def _ask(address):
    """Bring a line of memory into the L2 cache."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@triton.jit(do_not_specialize=["M"])
def _few(x, w, x_scale, w_scale, bias, out, parts, tickets, M, N, K, x_stride, BM: tl.constexpr, BN: tl.constexpr,
         BK: tl.constexpr, SPLITS: tl.constexpr, EVEN: tl.constexpr, AHEAD: tl.constexpr, STATIC: tl.constexpr,
         BIAS: tl.constexpr, SR: tl.constexpr, SK: tl.constexpr):  # fmt: skip
    """SR, SK: rows and columns of a weight that share a scale; 0: each row has one."""
    tile, split, tokens = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    m, n, k = tokens * BM + tl.arange(0, BM), tile * BN + tl.arange(0, BN), tl.arange(0, BK)
    share = tl.cdiv(K, BK * SPLITS)
    start = split * share * BK
    mine = w + n[:, None].to(tl.int64) * K
    if AHEAD and _PREFETCHES:
        line = start + tl.arange(0, AHEAD)[None, :] * 128
        _ask(tl.where((n[:, None] < N) & (line < K), mine + line, w))
    acc = tl.zeros((BN, BM), tl.float32)
    follow()
    for i in range(share):
        at = start + i * BK + k
        if EVEN:
            weight = tl.load(mine + at[None, :], eviction_policy="evict_first")
            row = tl.load(x + m[None, :].to(tl.int64) * x_stride + at[:, None], m[None, :] < M, 0.0)
        else:
            weight = tl.load(mine + at[None, :], (n[:, None] < N) & (at[None, :] < K), 0.0)
            row = tl.load(
                x + m[None, :].to(tl.int64) * x_stride + at[:, None], (m[None, :] < M) & (at[:, None] < K), 0.0
            )
        if SK:
            block = (start + i * BK) // SK
            rows = tl.load(w_scale + (n // SR) * tl.cdiv(K, SK) + block, (n < N) & (block * SK < K), 0.0)
            columns = tl.load(x_scale + m * tl.cdiv(K, SK) + block, (m < M) & (block * SK < K), 0.0)
            acc += tl.dot(weight, row) * rows[:, None] * columns[None, :]
        else:
            acc = tl.dot(weight, row, acc, max_num_imprecise_acc=BK)
    y = tl.trans(acc)
    there = (m[:, None] < M) & (n[None, :] < N)
    spot = m[:, None] * N + n[None, :]
    if SPLITS > 1:
        every = tl.num_programs(2) * BM
        tl.store(parts + split * every * N + spot, y, n[None, :] < N)
        tl.debug_barrier()
        ticket = tickets + tokens * tl.num_programs(0) + tile
        if tl.atomic_add(ticket, 1) != SPLITS - 1:
            return
        tl.store(ticket, 0)
        y = tl.zeros((BM, BN), tl.float32)
        for s in tl.static_range(SPLITS):
            y += tl.load(parts + s * every * N + spot, n[None, :] < N, 0.0, cache_modifier=".cg")
    if SK == 0:
        y *= tl.load(w_scale + n, n < N, 0.0)[None, :]
        if STATIC:
            y *= tl.load(x_scale)
        else:
            y *= tl.load(x_scale + m, m < M, 0.0)[:, None]
    if BIAS:
        y += tl.load(bias + n, n < N, 0.0).to(tl.float32)[None, :]
    tl.store(out + spot, y.to(out.dtype.element_ty), there)


@triton.jit(do_not_specialize=["M"])
def _many(x, w, x_scale, w_scale, bias, out, M, N, K, x_stride, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
          GROUP: tl.constexpr, EVEN: tl.constexpr, STATIC: tl.constexpr, BIAS: tl.constexpr, SR: tl.constexpr,
          SK: tl.constexpr):  # fmt: skip
    # why: neighbouring programs share tiles of both sides, which then stay in the cache
    pid, tall, wide = tl.program_id(0), tl.cdiv(M, BM), tl.cdiv(N, BN)
    first = pid // (GROUP * wide) * GROUP
    height = tl.minimum(tall - first, GROUP)
    m = (first + pid % (GROUP * wide) % height) * BM + tl.arange(0, BM)
    n = pid % (GROUP * wide) // height * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    rows, columns = x + (m % M)[:, None].to(tl.int64) * x_stride, w + (n % N)[None, :].to(tl.int64) * K
    acc = tl.zeros((BM, BN), tl.float32)
    follow()
    for i in range(tl.cdiv(K, BK)):
        at = i * BK + k
        if EVEN:
            row, weight = tl.load(rows + at[None, :]), tl.load(columns + at[:, None])
        else:
            row = tl.load(rows + at[None, :], at[None, :] < K, 0.0)
            weight = tl.load(columns + at[:, None], at[:, None] < K, 0.0)
        if SK:
            block = i * BK // SK
            of_row = tl.load(x_scale + (m % M) * tl.cdiv(K, SK) + block)
            of_column = tl.load(w_scale + (n % N) // SR * tl.cdiv(K, SK) + block)
            acc += tl.dot(row, weight) * of_row[:, None] * of_column[None, :]
        else:
            acc = tl.dot(row, weight, acc, max_num_imprecise_acc=BK)
    if SK == 0:
        acc *= tl.load(w_scale + n, n < N, 0.0)[None, :]
        if STATIC:
            acc *= tl.load(x_scale)
        else:
            acc *= tl.load(x_scale + m, m < M, 0.0)[:, None]
    if BIAS:
        acc += tl.load(bias + n, n < N, 0.0).to(tl.float32)[None, :]
    spot = m[:, None].to(tl.int64) * N + n[None, :]
    tl.store(out + spot, acc.to(out.dtype.element_ty), (m[:, None] < M) & (n[None, :] < N))


def few(x: Quantized, packed: Fp8Weight, bias: torch.Tensor | None, tile: Tile) -> torch.Tensor:
    """The kernel for few rows with tiles of one's own choice."""
    rows, (outputs, inputs) = x.shape[0], packed.data_OE.shape
    device = x.values.device
    out = torch.empty((rows, outputs), dtype=x.dtype, device=device)
    grid = (cdiv(outputs, tile.bn), tile.splits, cdiv(rows, tile.bm))
    parts, waiting = out, out
    if tile.splits > 1:
        parts = torch.empty((tile.splits, grid[2] * tile.bm, outputs), dtype=torch.float32, device=device)
        waiting = tickets(device, grid[0] * grid[2])
    even = outputs % tile.bn == 0 and inputs % (tile.bk * tile.splits) == 0
    ahead = min(tile.ahead, next_power_of_2(cdiv(inputs, tile.splits * _LINE)))
    _few[grid](
        x.values, packed.data_OE, x.scale, packed.scale, out if bias is None else bias, out, parts, waiting, rows,
        outputs, inputs, x.values.stride(0), tile.bm, tile.bn, tile.bk, tile.splits, even, ahead, x.scale.dim() == 0,
        bias is not None, *packed.block, num_warps=tile.warps, num_stages=tile.stages, **CHAINED,
    )  # fmt: skip
    return out


def many(
    x: Quantized, packed: Fp8Weight, bias: torch.Tensor | None, bm: int, bn: int, warps: int, stages: int
) -> torch.Tensor:
    """The kernel for many rows."""
    rows, (outputs, inputs) = x.shape[0], packed.data_OE.shape
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.values.device)
    _many[(cdiv(rows, bm) * cdiv(outputs, bn),)](
        x.values, packed.data_OE, x.scale, packed.scale, out if bias is None else bias, out, rows, outputs, inputs,
        x.values.stride(0), bm, bn, packed.block[1] or 128, 8, inputs % (packed.block[1] or 128) == 0,
        x.scale.dim() == 0, bias is not None, *packed.block, num_warps=warps, num_stages=stages, **CHAINED,
    )  # fmt: skip
    return out


def library(x: Quantized, packed: Fp8Weight, bias: torch.Tensor | None) -> torch.Tensor:
    """cuBLAS with a scale per row of both sides, its own sums kept in the tensor cores (as the peer does too)."""
    rows, outputs = x.shape[0], packed.data_OE.shape[0]
    scale = x.scale.expand(rows).contiguous() if x.scale.dim() == 0 else x.scale
    return torch._scaled_mm(
        x.values, packed.data_OE.t(), scale[:, None], packed.scale.view(1, outputs), bias, out_dtype=x.dtype,
        use_fast_accum=True,
    )  # fmt: skip


def _when(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (9, 0) and not target.deterministic


def _quantized(x: torch.Tensor | Quantized, packed: Fp8Weight) -> Quantized:
    return quantize_triton(x, packed.intake) if isinstance(x, torch.Tensor) else x


def _fits_library(x: Quantized, packed: Fp8Weight, bias: torch.Tensor | None) -> bool:
    outputs, inputs = packed.data_OE.shape
    return x.dtype is torch.bfloat16 and outputs % 16 == 0 and inputs % 16 == 0 and x.values.is_contiguous()


@linear_fp8.kernel("triton", when=_when)
def linear_fp8_triton(
    x: torch.Tensor | Quantized, packed: Fp8Weight, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """See the op."""
    x = _quantized(x, packed)
    tile = tile_of(x.shape[0], *packed.data_OE.shape)
    if tile is not None:
        return few(x, packed, bias_O, tile)
    if _fits_library(x, packed, bias_O):
        return library(x, packed, bias_O)
    return many(x, packed, bias_O, *_MANY)


def _power(n: int) -> bool:
    return n >= 32 and n & (n - 1) == 0


@linear_fp8_block.kernel("triton", when=_when)
def linear_fp8_block_triton(
    x: torch.Tensor | Quantized, packed: Fp8Weight, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """See the op; blocks that are no powers of two from 32 on go to the reference."""
    if not _power(packed.block[1]):
        return linear_fp8_block(x, packed, bias_O)  # type: ignore[no-any-return]
    x = _quantized(x, packed)
    tile = tile_of(x.shape[0], *packed.data_OE.shape, packed.block[1])
    if tile is not None:
        return few(x, packed, bias_O, tile)
    return many(x, packed, bias_O, *_MANY)
