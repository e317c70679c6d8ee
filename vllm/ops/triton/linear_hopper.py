"""The kernel of `linear.py` for Hopper, in Gluon: weights come by the copy engine, many tiles ahead.

One thread asks the copy engine for whole tiles, so nearly all of shared memory can be on its way at once. The first
tiles of weights are asked for before the kernel before is done: they depend on nobody. Where weights are e4m3, x
becomes so tile by tile on the way to its product, with a scale for each row of a tile. Its twin in Triton runs
everywhere else, and in the interpreter. Called by: linear.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from vllm.ops.triton.chain import CHAINED
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.tiles import Tile

HAS_COPY_ENGINE = the_chip().is_hopper
"""The products of this kernel are Hopper's own: neither older nor newer devices have them."""
_KINDS = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16, torch.float8_e4m3fn: gl.float8e4nv}


@gluon.jit
def _shrink(value, small, COLUMNS: gl.constexpr):
    """A tile of x as e4m3, a scale for each of its rows: values go to `small`, scales are the result."""
    x = value.load(COLUMNS).to(gl.float32)
    most = gl.max(gl.abs(x), 1)
    back = gl.where(most > 0.0, 448.0 / gl.where(most > 0.0, most, 1.0), 0.0)
    small.store((x * back[:, None]).to(gl.float8e4nv))
    fence_async_shared()
    return most * 0.002232142857142857


@gluon.jit
def _ask(w_desc, weights, bars, i, first, split, half: gl.constexpr, BK: gl.constexpr, SHARE: gl.constexpr,
         STAGES: gl.constexpr, BYTES: gl.constexpr, ACT: gl.constexpr):  # fmt: skip
    """Ask for tile i of the weights; the barrier also counts the tile of x that belongs to it."""
    s = i % STAGES
    mbarrier.expect(bars.index(s), BYTES)
    tma.async_copy_global_to_shared(w_desc, [first, split * SHARE + i * BK], bars.index(s), weights.index(s))
    if ACT:
        tma.async_copy_global_to_shared(
            w_desc, [half + first, split * SHARE + i * BK], bars.index(s), weights.index(STAGES + s)
        )


@gluon.jit
def _ask_x(x_desc, values, bars, i, split, BK: gl.constexpr, SHARE: gl.constexpr, STAGES: gl.constexpr):
    s = i % STAGES
    tma.async_copy_global_to_shared(x_desc, [0, split * SHARE + i * BK], bars.index(s), values.index(s))


@gluon.jit
def _few(w_desc, x_desc, rates, bias, squares, hidden, norm, out, scaled, sums, parts, tickets, M, eps, N: gl.constexpr,
         K: gl.constexpr, BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, SPLITS: gl.constexpr,
         STAGES: gl.constexpr, FOLDED: gl.constexpr, FP: gl.constexpr, ACT: gl.constexpr, ADD: gl.constexpr,
         BIAS: gl.constexpr, CHAINED: gl.constexpr, WARPS: gl.constexpr, SHRUNK: gl.constexpr):  # fmt: skip
    tile, split = gl.program_id(0), gl.program_id(1)
    O: gl.constexpr = N // 2 if ACT else N  # noqa: E741
    SHARE: gl.constexpr = K // SPLITS
    STEPS: gl.constexpr = SHARE // BK
    SMALL: gl.constexpr = w_desc.dtype == gl.float8e4nv
    BYTES: gl.constexpr = BN * (2 if ACT else 1) * BK * (1 if SMALL else 2) + BM * BK * 2
    dtype: gl.constexpr = x_desc.dtype
    weights = gl.allocate_shared_memory(w_desc.dtype, [STAGES * (2 if ACT else 1), BN, BK], w_desc.layout)
    values = gl.allocate_shared_memory(dtype, [STAGES, BM, BK], x_desc.layout)
    if SMALL:
        COLUMNS: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [WARPS, 1], [1, 0])
        shrunk = gl.allocate_shared_memory(w_desc.dtype, [2, BM, BK], SHRUNK)
    bars = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for j in gl.static_range(STAGES):
        mbarrier.init(bars.index(j), count=1)
    for j in gl.static_range(STAGES):
        if j < STEPS:
            _ask(w_desc, weights, bars, j, tile * BN, split, O, BK, SHARE, STAGES, BYTES, ACT)
    DEEP: gl.constexpr = 32 if SMALL else 16
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, BM, DEEP])
    row, m = gl.arange(0, BN, gl.SliceLayout(1, layout)), gl.arange(0, BM, gl.SliceLayout(0, layout))
    n = tile * BN + row
    there = (m < M)[None, :] & (n[:, None] < O)
    at = m[None, :] * O + n[:, None]
    if ADD:
        after = gl.load(norm + n)
    if SMALL:
        rate = gl.load(rates + n)[:, None]
        other = gl.load(rates + O + n)[:, None] if ACT else rate
    if CHAINED:
        gl.inline_asm_elementwise("griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
        gl.inline_asm_elementwise("griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
    for j in gl.static_range(STAGES):
        if j < STEPS:
            _ask_x(x_desc, values, bars, j, split, BK, SHARE, STAGES)
    # why: what the end of the program needs is on its way while the products are made
    if FOLDED:
        flat: gl.constexpr = gl.BlockedLayout([1, 1], [32, 1], [WARPS, 1], [0, 1])
        share = gl.arange(0, FP, gl.SliceLayout(1, flat))
        col = gl.arange(0, BM, gl.SliceLayout(0, flat))
        total = gl.load(
            squares + share[:, None] * M + col[None, :], (share[:, None] < FOLDED) & (col[None, :] < M), 0.0
        )
        factor = gl.rsqrt(gl.sum(total, 0) / K + eps)
        factor = gl.convert_layout(factor, gl.SliceLayout(0, layout))[None, :]
    if ADD:
        stream = gl.load(hidden + at, there, 0.0)
    acc = gl.zeros((BN, BM), gl.float32, layout)
    second = gl.zeros((BN, BM), gl.float32, layout)
    for i in range(STEPS):
        s = i % STAGES
        mbarrier.wait(bars.index(s), (i // STAGES) & 1)
        if SMALL:
            scale = _shrink(values.index(s), shrunk.index(i & 1), COLUMNS)
            scale = gl.convert_layout(scale, gl.SliceLayout(0, layout))[None, :]
            gl.thread_barrier()
            value = shrunk.index(i & 1).permute((1, 0))
            none = gl.zeros((BN, BM), gl.float32, layout)
            y = warpgroup_mma(weights.index(s), value, none, use_acc=False, max_num_imprecise_acc=BK, is_async=True)
            if ACT:
                z = warpgroup_mma(
                    weights.index(STAGES + s), value, none, use_acc=False, max_num_imprecise_acc=BK, is_async=True
                )
                y, z = warpgroup_mma_wait(num_outstanding=0, deps=(y, z))
                second += z * scale
            else:
                y = warpgroup_mma_wait(num_outstanding=0, deps=(y,))
            acc += y * scale
        else:
            value = values.index(s).permute((1, 0))
            acc = warpgroup_mma(weights.index(s), value, acc, is_async=True)
            if ACT:
                second = warpgroup_mma(weights.index(STAGES + s), value, second, is_async=True)
                acc, second = warpgroup_mma_wait(num_outstanding=0, deps=(acc, second))
            else:
                acc = warpgroup_mma_wait(num_outstanding=0, deps=(acc,))
        if i + STAGES < STEPS:
            gl.thread_barrier()  # why: a tile is overwritten when all warps have read it
            _ask(w_desc, weights, bars, i + STAGES, tile * BN, split, O, BK, SHARE, STAGES, BYTES, ACT)
            _ask_x(x_desc, values, bars, i + STAGES, split, BK, SHARE, STAGES)
    if SPLITS > 1:
        spot = m[None, :] * N + n[:, None]
        gl.store(parts + split * BM * N + spot, acc)
        if ACT:
            gl.store(parts + split * BM * N + O + spot, second)
        gl.thread_barrier()
        if gl.atomic_add(tickets + tile, 1) != SPLITS - 1:
            return
        gl.store(tickets + tile, 0)
        acc = gl.zeros((BN, BM), gl.float32, layout)
        second = gl.zeros((BN, BM), gl.float32, layout)
        for j in gl.static_range(SPLITS):
            acc += gl.load(parts + j * BM * N + spot, cache_modifier=".cg")
            if ACT:
                second += gl.load(parts + j * BM * N + O + spot, cache_modifier=".cg")
    if SMALL:
        acc, second = acc * rate, second * other
    if FOLDED:
        acc, second = acc * factor, second * factor
    if BIAS:
        acc += gl.load(bias + n).to(gl.float32)[:, None]
    if ACT:
        # why: the reference rounds both halves to the dtype
        gate, up = acc.to(dtype).to(gl.float32), second.to(dtype).to(gl.float32)
        acc = gate / (1.0 + gl.exp(-gate)) * up
    if ADD:
        y = acc.to(dtype) + stream
        wide = gl.where(there, y.to(gl.float32), 0.0)
        gl.store(scaled + at, (wide * after[:, None]).to(dtype), there)
        gl.store(sums + tile * M + m, gl.sum(wide * wide, 0), m < M)
        gl.store(out + at, y, there)
    else:
        gl.store(out + at, acc.to(dtype), there)


def run_hopper(
    grid: tuple[int, int],
    x: torch.Tensor,
    weight: torch.Tensor,
    memory: tuple[torch.Tensor, ...],
    eps: float,
    height: int,
    tile: Tile,
    folds: tuple[int, int, bool, bool, bool],
) -> None:
    """`linear.few`'s launch; `memory` and `folds` are its arguments of those names, in order."""
    outputs, inputs = weight.shape
    _few[grid](
        described(weight, tile.bn, tile.bk), described(x, height, tile.bk), *memory, x.shape[0], eps, outputs, inputs,
        height, tile.bn, tile.bk, tile.splits, tile.stages, *folds, True, tile.warps,
        gl.NVMMASharedLayout.get_default_for([height, tile.bk], gl.float8e4nv), num_warps=tile.warps, **CHAINED,
    )  # fmt: skip


def described(x: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    """What the copy engine is told of a matrix that is read in tiles."""
    layout = gl.NVMMASharedLayout.get_default_for([rows, columns], _KINDS[x.dtype])
    return TensorDescriptor.from_tensor(x, [rows, columns], layout)
