"""The kernel of `linear.py` for Hopper where both sides are e4m3, in Gluon: nothing is shrunk on the way to a product.

Who makes x makes it e4m3 with a scale for each token and group of columns: attention for each head, these maps for each
tile of their outputs. So a program reads half the bytes, and its products of a group are added times their scale. What
goes to the next map leaves in the same form. Called by: linear.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait

from vllm.ops.quantize import Quantized
from vllm.ops.triton.chain import CHAINED
from vllm.ops.triton.linear_hopper import described
from vllm.ops.triton.tiles import Tile
from vllm.util.arith import next_power_of_2


@gluon.jit
def _ask(w_desc, weights, bars, i, first, start, half: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr,
         BYTES: gl.constexpr, ACT: gl.constexpr):  # fmt: skip
    """Ask for tile i of the weights; the barrier also counts the tile of x that belongs to it."""
    s = i % STAGES
    mbarrier.expect(bars.index(s), BYTES)
    tma.async_copy_global_to_shared(w_desc, [first, start + i * BK], bars.index(s), weights.index(s))
    if ACT:
        tma.async_copy_global_to_shared(
            w_desc, [half + first, start + i * BK], bars.index(s), weights.index(STAGES + s)
        )


@gluon.jit
def _ask_x(x_desc, values, bars, i, start, BK: gl.constexpr, STAGES: gl.constexpr):
    s = i % STAGES
    tma.async_copy_global_to_shared(x_desc, [0, start + i * BK], bars.index(s), values.index(s))


@gluon.jit
def _start(weight, value, none, first: gl.constexpr, G: gl.constexpr):
    """A group's product, on its way."""
    return warpgroup_mma(
        weight.slice(first, G, 1), value.slice(first, G, 1).permute((1, 0)), none, use_acc=False,
        max_num_imprecise_acc=G, is_async=True,
    )  # fmt: skip


@gluon.jit
def _few(w_desc, x_desc, factors, rates, bias, squares, hidden, norm, out, small, sums, parts, tickets, scales, M, eps,
         N: gl.constexpr, K: gl.constexpr, BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, G: gl.constexpr,
         GP: gl.constexpr, SPLITS: gl.constexpr, STAGES: gl.constexpr, FOLDED: gl.constexpr, FP: gl.constexpr,
         ACT: gl.constexpr, ADD: gl.constexpr, BIAS: gl.constexpr, SHRINK: gl.constexpr,
         WARPS: gl.constexpr):  # fmt: skip
    tile, split = gl.program_id(0), gl.program_id(1)
    O: gl.constexpr = N // 2 if ACT else N  # noqa: E741
    STEPS: gl.constexpr = K // SPLITS // BK
    PARTS: gl.constexpr = BK // G
    BYTES: gl.constexpr = (BN * (2 if ACT else 1) + BM) * BK
    start = split * (K // SPLITS)
    weights = gl.allocate_shared_memory(w_desc.dtype, [STAGES * (2 if ACT else 1), BN, BK], w_desc.layout)
    values = gl.allocate_shared_memory(x_desc.dtype, [STAGES, BM, BK], x_desc.layout)
    # why a row at a time: each is read by itself, as one side of a product's tile
    held = gl.allocate_shared_memory(gl.float32, [GP, BM], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    bars = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for j in gl.static_range(STAGES):
        mbarrier.init(bars.index(j), count=1)
    for j in gl.static_range(STAGES):
        if j < STEPS:
            _ask(w_desc, weights, bars, j, tile * BN, start, O, BK, STAGES, BYTES, ACT)
    SIDE: gl.constexpr = WARPS // 4 if BN == 64 else 1  # warps side by side in tokens
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS // SIDE, SIDE], [16, BM // SIDE, 32])
    # why: what leaves and enters lies along n in memory, a token in a warp
    along: gl.constexpr = gl.BlockedLayout([BN // 32, 1], [32, 1], [1, WARPS], [0, 1])
    n = tile * BN + gl.arange(0, BN, gl.SliceLayout(1, along))
    m = gl.arange(0, BM, gl.SliceLayout(0, along))
    there = (m < M)[None, :]
    at = m[None, :] * O + n[:, None]
    rate = gl.load(rates + n)[:, None]
    other = gl.load(rates + O + n)[:, None] if ACT else rate
    if ADD:
        after = gl.load(norm + n)
    gl.inline_asm_elementwise("griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
    gl.inline_asm_elementwise("griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
    for j in gl.static_range(STAGES):
        if j < STEPS:
            _ask_x(x_desc, values, bars, j, start, BK, STAGES)
    LANES: gl.constexpr = 32 if BM > 32 else BM
    flat: gl.constexpr = gl.BlockedLayout([1, 1], [32 // LANES, LANES], [WARPS, 1], [1, 0])
    col, group = gl.arange(0, BM, gl.SliceLayout(0, flat)), gl.arange(0, GP, gl.SliceLayout(1, flat))
    part = gl.load(factors + (start // G + group)[:, None] * BM + col[None, :], group[:, None] < K // SPLITS // G, 0.0)
    # why: what the end of the program needs is on its way while the products are made
    if FOLDED:
        share = gl.arange(0, FP, gl.SliceLayout(1, flat))
        total = gl.load(
            squares + share[:, None] * M + col[None, :], (share[:, None] < FOLDED) & (col[None, :] < M), 0.0
        )
        factor = gl.rsqrt(gl.sum(total, 0) / K + eps)
        factor = gl.convert_layout(factor, gl.SliceLayout(0, along))[None, :]
    if ADD:
        stream = gl.load(hidden + at, there, 0.0)
    held._reinterpret(gl.float32, [GP, BM], gl.SwizzledSharedLayout(1, 1, 1, [1, 0])).store(part)
    gl.thread_barrier()
    none = gl.zeros((BN, BM), gl.float32, layout)
    acc, second = none, none
    for i in range(STEPS):
        s = i % STAGES
        mbarrier.wait(bars.index(s), (i // STAGES) & 1)
        for p in gl.static_range(PARTS):
            y = _start(weights.index(s), values.index(s), none, p * G, G)
            scale = held.index(i * PARTS + p).load(gl.SliceLayout(0, layout))[None, :]
            if ACT:
                z = _start(weights.index(STAGES + s), values.index(s), none, p * G, G)
                y, z = warpgroup_mma_wait(num_outstanding=0, deps=(y, z))
                second += z * scale
            else:
                y = warpgroup_mma_wait(num_outstanding=0, deps=(y,))
            acc += y * scale
        if i + STAGES < STEPS:
            gl.thread_barrier()  # why: a tile is overwritten when all warps have read it
            _ask(w_desc, weights, bars, i + STAGES, tile * BN, start, O, BK, STAGES, BYTES, ACT)
            _ask_x(x_desc, values, bars, i + STAGES, start, BK, STAGES)
    acc = gl.convert_layout(acc, along)
    if ACT:
        second = gl.convert_layout(second, along)
    if SPLITS > 1:
        spot = m[None, :] * N + n[:, None]
        gl.store(parts + split * BM * N + spot, acc)
        if ACT:
            gl.store(parts + split * BM * N + O + spot, second)
        gl.thread_barrier()
        if gl.atomic_add(tickets + tile, 1) != SPLITS - 1:
            return
        gl.store(tickets + tile, 0)
        acc = gl.zeros((BN, BM), gl.float32, along)
        second = gl.zeros((BN, BM), gl.float32, along)
        for j in gl.static_range(SPLITS):
            acc += gl.load(parts + j * BM * N + spot, cache_modifier=".cg")
            if ACT:
                second += gl.load(parts + j * BM * N + O + spot, cache_modifier=".cg")
    acc *= rate
    if ACT:
        second *= other
    if FOLDED:
        acc *= factor
        if ACT:
            second *= factor
    if BIAS:
        acc += gl.load(bias + n).to(gl.float32)[:, None]
    dtype: gl.constexpr = out.dtype.element_ty
    if ACT:
        # why: the reference rounds both halves and their product to the dtype
        gate, up = acc.to(dtype).to(gl.float32), second.to(dtype).to(gl.float32)
        acc = (gate / (1.0 + gl.exp(-gate)) * up).to(dtype).to(gl.float32)
    if ADD:
        y = acc.to(dtype) + stream
        gl.store(out + at, y, there)
        wide = y.to(gl.float32)
        gl.store(sums + tile * M + m, gl.sum(wide * wide, 0), m < M)
        acc = wide * after[:, None]
    if SHRINK:
        most = gl.max(gl.abs(acc), 0)
        back = 448.0 / gl.where(most > 0.0, most, 448.0)
        gl.store(small + at, (acc * back[None, :]).to(gl.float8e4nv), there)
        gl.store(scales + tile * BM + m, most * 0.002232142857142857)
    elif ADD:
        gl.store(small + at, acc.to(dtype), there)
    else:
        gl.store(out + at, acc.to(dtype), there)


def run_hopper_e4m3(
    grid: tuple[int, int],
    x: Quantized,
    weight: torch.Tensor,
    memory: tuple[torch.Tensor, ...],
    small: Quantized | None,
    eps: float,
    height: int,
    tile: Tile,
    folds: tuple[int, int, bool, bool, bool],
) -> None:
    """`linear.few`'s launch; `memory` and `folds` are its arguments of those names, in order."""
    outputs, inputs = weight.shape
    groups = x.scale.shape[1]
    _few[grid](
        described(weight, tile.bn, tile.bk), described(x.values, height, tile.bk), x.scale,
        *memory, memory[0] if small is None else small.scale, x.shape[0], eps, outputs, inputs, height, tile.bn,
        tile.bk, inputs // groups, next_power_of_2(groups // tile.splits), tile.splits, tile.stages, *folds,
        small is not None, tile.warps, num_warps=tile.warps, **CHAINED,
    )  # fmt: skip
