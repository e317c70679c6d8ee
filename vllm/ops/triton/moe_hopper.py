"""Products of many sorted rows with their experts' weights, for Hopper: one copier, two multipliers of 64 x 256.

    tile    128 rows of one expert x 256 outputs; with a gate those are 128 of the gate and the same 128 of up, and what
            is stored is silu(gate) * up, so that the wide result never exists
    copier  block list ─ TMA ─▶ STAGES tiles of rows and weights in shared memory, into the next tile too; rows that
            are still in the order of tokens are fetched one by one, by four warps (`_gather`)

Persistent: programs take tiles in turn, all outputs of a block next to each other. Rows behind a block's end are those
of another expert and are not stored. Gluon is experimental: `moe._up` and `moe._down` are the twins. Called by:
moe_many.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from vllm.ops.triton.chain import CHAINED, IS_CHAINED
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.moe_sort import Sorted

ROWS = 128
"""Rows of a block, for `sort`."""


@gluon.jit
def _spot(blocks, i, rows, TILES: gl.constexpr, GROUP: gl.constexpr):
    """(expert, first row, end of its rows, tile of outputs) of tile i; without a list the one expert has all rows."""
    if GROUP:
        # why: programs at work at one time share rows and weights, which then stay in the cache
        above = i // (GROUP * TILES) * GROUP
        height = gl.minimum((rows + 127) // 128 - above, GROUP)
        expert, first, last = above * 0, (above + i % (GROUP * TILES) % height) * 128, rows
        tile = i % (GROUP * TILES) // height
    else:
        block = blocks + i // TILES * 3
        expert, first, last, tile = gl.load(block), gl.load(block + 1), gl.load(block + 2), i % TILES
    return expert, first, last, tile


@gluon.jit
def _copy(xd, wd, blocks, total, rows, x_buf, w_buf, full, empty, J: gl.constexpr, K: gl.constexpr, TILES: gl.constexpr,
          GATED: gl.constexpr, GROUP: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    it = 0
    spot = _spot(blocks, gl.program_id(0), rows, TILES, GROUP)
    for i in range(gl.program_id(0), total, gl.num_programs(0)):
        expert, first, _, tile = spot
        # why: where the next tile is is known before its turn
        spot = _spot(blocks, gl.minimum(i + gl.num_programs(0), total - 1), rows, TILES, GROUP)
        if expert >= 0:
            if GATED:
                low = expert * J + tile * 128
                high = low + J // 2
            else:
                low = expert * J + tile * 256
                high = low + 128
            for k in range(0, K, BK):
                s = it % STAGES
                mbarrier.wait(empty.index(s), ((it // STAGES) & 1) ^ 1)
                mbarrier.expect(full.index(s), (128 + 256) * BK * 2)
                tma.async_copy_global_to_shared(xd, [first, k], full.index(s), x_buf.index(2 * s))
                tma.async_copy_global_to_shared(xd, [first + 64, k], full.index(s), x_buf.index(2 * s + 1))
                tma.async_copy_global_to_shared(wd, [low, k], full.index(s), w_buf.index(2 * s))
                tma.async_copy_global_to_shared(wd, [high, k], full.index(s), w_buf.index(2 * s + 1))
                it += 1


@gluon.jit
def _gather(x, x_stride, order, wd, blocks, total, x_buf, w_buf, full, empty, J: gl.constexpr, K: gl.constexpr,
            A: gl.constexpr, TILES: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """As `_copy` with a gate, for rows of tokens that have A pairs each."""
    BY: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    rows = x_buf._reinterpret(x.dtype.element_ty, [STAGES, 128, BK], x_buf.layout)
    m, n = gl.arange(0, 128, layout=gl.SliceLayout(1, BY)), gl.arange(0, BK, layout=gl.SliceLayout(0, BY))
    it = 0
    spot = _spot(blocks, gl.program_id(0), 0, TILES, 0)
    for i in range(gl.program_id(0), total, gl.num_programs(0)):
        expert, first, last, tile = spot
        spot = _spot(blocks, gl.minimum(i + gl.num_programs(0), total - 1), 0, TILES, 0)
        if expert >= 0:
            low = expert * J + tile * 128
            # why: behind the end of a block its last row comes again, which is in the cache
            pair = gl.load(order + gl.minimum(first + m, last - 1))
            at = x + (pair // A).to(gl.int64)[:, None] * x_stride + n[None, :]
            for k in range(0, K, BK):
                s = it % STAGES
                mbarrier.wait(empty.index(s), ((it // STAGES) & 1) ^ 1)
                mbarrier.expect(full.index(s), 256 * BK * 2)
                tma.async_copy_global_to_shared(wd, [low, k], full.index(s), w_buf.index(2 * s))
                tma.async_copy_global_to_shared(wd, [low + J // 2, k], full.index(s), w_buf.index(2 * s + 1))
                async_copy.async_copy_global_to_shared(rows.index(s), at + k)
                async_copy.mbarrier_arrive(full.index(s), increment_count=False)
                it += 1


@gluon.jit
def _silu_mul(gate, up):
    """silu(gate) * up in six instructions; the same bits as by division, but for factors beyond float32."""
    return gl.inline_asm_elementwise(
        """{ .reg .f32 t;
        mul.f32 t, $1, 0fBFB8AA3B; ex2.approx.ftz.f32 t, t; add.f32 t, t, 0f3F800000; rcp.approx.ftz.f32 t, t;
        mul.f32 t, t, $1; mul.f32 $0, t, $2; }""", "=f,f,f", [gate, up], gl.float32, True, 1)  # fmt: skip


@gluon.jit
def _store(out, y, row, last, column, width):
    """What is real of 64 rows."""
    LAYOUT: gl.constexpr = y.type.layout
    line = row + gl.arange(0, 64, layout=gl.SliceLayout(1, LAYOUT))
    n = column + gl.arange(0, 128, layout=gl.SliceLayout(0, LAYOUT))
    gl.store(out + line.to(gl.int64)[:, None] * width + n[None, :], y, (line < last)[:, None] & (n < width)[None, :])


@gluon.jit
def _multiply(half: gl.constexpr, od, blocks, total, rows, out, x_buf, w_mma, o_buf, full, empty, J: gl.constexpr,
              K: gl.constexpr, TILES: gl.constexpr, GATED: gl.constexpr, GROUP: gl.constexpr, BK: gl.constexpr,
              STAGES: gl.constexpr, GATHER: gl.constexpr):  # fmt: skip
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    Y: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    PARTS: gl.constexpr = 1 if GATED else 2
    width: gl.constexpr = J // 2 if GATED else J
    dtype: gl.constexpr = out.dtype.element_ty
    it = 0
    spot = _spot(blocks, gl.program_id(0), rows, TILES, GROUP)
    for i in range(gl.program_id(0), total, gl.num_programs(0)):
        expert, first, last, tile = spot
        spot = _spot(blocks, gl.minimum(i + gl.num_programs(0), total - 1), rows, TILES, GROUP)
        if expert >= 0:
            acc = gl.full([64, 256], 0.0, gl.float32, layout=ACC)
            s = it % STAGES
            mbarrier.wait(full.index(s), (it // STAGES) & 1)
            if GATHER:
                # why: products read through another way to shared memory than such copies write through
                fence_async_shared()
            acc = warpgroup_mma(x_buf.index(2 * s + half), w_mma.index(s).permute((1, 0)), acc, is_async=True)
            acc = warpgroup_mma_wait(1, deps=(acc,))
            it += 1
            for _ in range(BK, K, BK):
                s = it % STAGES
                mbarrier.wait(full.index(s), (it // STAGES) & 1)
                if GATHER:
                    fence_async_shared()
                acc = warpgroup_mma(x_buf.index(2 * s + half), w_mma.index(s).permute((1, 0)), acc, is_async=True)
                acc = warpgroup_mma_wait(1, deps=(acc,))
                mbarrier.arrive(empty.index((it - 1) % STAGES), count=1)
                it += 1
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(empty.index((it - 1) % STAGES), count=1)
            low, high = acc.reshape([64, 2, 128]).permute((0, 2, 1)).split()
            if GATED:
                low = _silu_mul(low, high)
            row, column = first + half * 64, tile * (128 * PARTS)
            y = gl.convert_layout(low.to(dtype), Y)
            z = gl.convert_layout(high.to(dtype), Y)
            if row + 64 <= last:
                # why: the copy engine stores while the next tile's products are made
                tma.store_wait(0)
                o_buf.index(half * PARTS).store(y)
                if not GATED:
                    o_buf.index(half * PARTS + 1).store(z)
                fence_async_shared()
                tma.async_copy_shared_to_global(od, [row, column], o_buf.index(half * PARTS))
                if not GATED:
                    tma.async_copy_shared_to_global(od, [row, column + 128], o_buf.index(half * PARTS + 1))
            elif row < last:
                _store(out, y, row, last, column, width)
                if not GATED:
                    _store(out, z, row, last, column + 128, width)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["total", "rows"])
def _product(xd, wd, od, blocks, total, rows, out, x, x_stride, order, J: gl.constexpr, K: gl.constexpr,
             TILES: gl.constexpr, GATED: gl.constexpr, GROUP: gl.constexpr, A: gl.constexpr, BK: gl.constexpr,
             STAGES: gl.constexpr, CHAINED: gl.constexpr, num_warps: gl.constexpr):  # fmt: skip
    dtype: gl.constexpr = out.dtype.element_ty
    x_buf = gl.allocate_shared_memory(dtype, [2 * STAGES, 64, BK], xd.layout)
    w_buf = gl.allocate_shared_memory(dtype, [2 * STAGES, 128, BK], wd.layout)
    w_mma = w_buf._reinterpret(dtype, [STAGES, 256, BK], wd.layout)
    o_buf = gl.allocate_shared_memory(dtype, [2 if GATED else 4, 64, 128], od.layout)
    bar: gl.constexpr = mbarrier.MBarrierLayout()
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    for s in gl.static_range(STAGES):
        # why: threads that fetch rows each tell of theirs
        mbarrier.init(full.index(s), count=129 if A else 1)
        mbarrier.init(empty.index(s), count=2)
    fence_async_shared()
    gl.thread_barrier()
    if CHAINED:
        gl.inline_asm_elementwise("griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
        gl.inline_asm_elementwise("griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
    if A:
        gl.warp_specialize(
            [
                (_multiply, (gl.constexpr(0), od, blocks, total, rows, out, x_buf, w_mma, o_buf, full, empty, J, K,
                             TILES, GATED, GROUP, BK, STAGES, True)),
                (_multiply, (gl.constexpr(1), od, blocks, total, rows, out, x_buf, w_mma, o_buf, full, empty, J, K,
                             TILES, GATED, GROUP, BK, STAGES, True)),
                (_gather, (x, x_stride, order, wd, blocks, total, x_buf, w_buf, full, empty, J, K, A, TILES, BK,
                           STAGES)),
            ],
            [4, 4],
            [232, 40],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (_multiply, (gl.constexpr(0), od, blocks, total, rows, out, x_buf, w_mma, o_buf, full, empty, J, K,
                             TILES, GATED, GROUP, BK, STAGES, False)),
                (_multiply, (gl.constexpr(1), od, blocks, total, rows, out, x_buf, w_mma, o_buf, full, empty, J, K,
                             TILES, GATED, GROUP, BK, STAGES, False)),
                (_copy, (xd, wd, blocks, total, rows, x_buf, w_buf, full, empty, J, K, TILES, GATED, GROUP, BK,
                         STAGES)),
            ],
            [4, 1],
            [240, 24],
        )  # fmt: skip


_LAYOUT = gl.NVMMASharedLayout(128, 16, rank=2)


def _stages(is_gated: bool) -> int:
    """Tiles in flight: what is stored takes 32 or 64 of 227 KiB, a tile of rows and weights 48."""
    return 4 if is_gated else 3


def can(x: torch.Tensor, up: torch.Tensor, down: torch.Tensor, act: str) -> bool:
    """Whether these products serve; the chip has been asked before."""
    is_half = x.dtype in (torch.bfloat16, torch.float16) and up.dtype == down.dtype == x.dtype
    whole = up.shape[2] % 64 == 0 and down.shape[2] % 64 == 0
    return is_half and whole and act == "silu" and down.shape[2] % 128 == 0 and down.shape[1] % 256 == 0


def can_dense(x: torch.Tensor, weight_JK: torch.Tensor) -> bool:
    """Whether `dense` serves, with a gate."""
    is_half = x.dtype in (torch.bfloat16, torch.float16) and weight_JK.dtype == x.dtype
    return is_half and weight_JK.shape[1] % 64 == 0 and weight_JK.shape[0] % 256 == 0 and x.stride(0) % 8 == 0


def try_out() -> None:
    """Run the smallest calls. Raises whatever this Triton says of them."""
    blocks = torch.tensor([[0, 0, 2]], dtype=torch.int32, device="cuda")
    rows = torch.zeros((2, 128), dtype=torch.bfloat16, device="cuda")
    s = Sorted(blocks, blocks, blocks, blocks, 1)
    product(rows, torch.zeros((1, 256, 128), dtype=torch.bfloat16, device="cuda"), s, True)
    product(rows, torch.zeros((1, 256, 128), dtype=torch.bfloat16, device="cuda"), s, False)


def try_fetching(device: str) -> None:
    """The same for rows in the order of tokens."""
    blocks = torch.tensor([[0, 0, 2]], dtype=torch.int32, device=device)
    rows = torch.zeros((2, 128), dtype=torch.bfloat16, device=device)
    s = Sorted(blocks.flatten(), blocks, blocks, blocks, 1)
    product(rows, torch.zeros((1, 256, 128), dtype=torch.bfloat16, device=device), s, True, 1)


def product(x: torch.Tensor, weight_XJK: torch.Tensor, s: Sorted, is_gated: bool, top_k: int = 0) -> torch.Tensor:
    """Rows [pairs, K] in sorted order times their experts' W^T: [pairs, J], or silu(gate) * up: [pairs, J / 2].

    With `top_k`, which takes a gate, x are the rows of tokens that have so many pairs each, contiguous.
    """
    num, outputs, inputs = weight_XJK.shape
    width = outputs // 2 if is_gated else outputs
    out = torch.empty((x.shape[0] * max(1, top_k), width), dtype=x.dtype, device=x.device)
    xd = TensorDescriptor.from_tensor(x, [64, 64], _LAYOUT)
    wd = TensorDescriptor.from_tensor(weight_XJK.view(num * outputs, inputs), [128, 64], _LAYOUT)
    od = TensorDescriptor.from_tensor(out, [64, 128], _LAYOUT)
    tiles = -(-width // (128 if is_gated else 256))
    total = s.num_blocks * tiles
    _product[(min(total, the_chip().processors),)](
        xd, wd, od, s.blocks, total, 0, out, x, x.stride(0), s.order, outputs, inputs, tiles, is_gated, 0, top_k, 64,
        _stages(is_gated), IS_CHAINED, num_warps=4, **CHAINED,
    )  # fmt: skip
    return out


def dense(x: torch.Tensor, weight_JK: torch.Tensor, is_gated: bool, group: int) -> torch.Tensor:
    """The same with one weight for all rows."""
    outputs, inputs = weight_JK.shape
    width = outputs // 2 if is_gated else outputs
    out = torch.empty((x.shape[0], width), dtype=x.dtype, device=x.device)
    xd = TensorDescriptor.from_tensor(x, [64, 64], _LAYOUT)
    wd = TensorDescriptor.from_tensor(weight_JK, [128, 64], _LAYOUT)
    od = TensorDescriptor.from_tensor(out, [64, 128], _LAYOUT)
    tiles = -(-width // (128 if is_gated else 256))
    total = -(-x.shape[0] // 128) * tiles
    _product[(min(total, the_chip().processors),)](
        xd, wd, od, x, total, x.shape[0], out, x, 0, x, outputs, inputs, tiles, is_gated, group, 0, 64,
        _stages(is_gated), IS_CHAINED, num_warps=4, **CHAINED,
    )  # fmt: skip
    return out
