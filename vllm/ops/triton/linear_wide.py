"""The gated map of 65 rows and more for Hopper, in Gluon: a warp copies weights, one copies rows, two groups multiply.

    tile               128 rows x up to 128 gates and as many ups, made of up to three powers of two, so that one round
                       of programs is as full as can be; what is stored is silu(gate) * up
    copier of weights  TMA ─▶ a ring of tiles; it depends on nobody and starts while the kernel before still runs
    copier of rows     TMA ─▶ a ring of tiles, behind the wait for the kernel before

Rings are equally deep: requests are served in order, so rows asked for behind many weights come too late. Gluon is
experimental: the library and a pass over its result serve where this does not compile. Called by: linear_mul.
"""

import functools

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

from vllm.ops.triton.chain import CHAINED, IS_CHAINED
from vllm.ops.triton.chip import the_chip


@gluon.jit
def _follow(CHAINED: gl.constexpr):
    """`chain.follow`."""
    if CHAINED:
        gl.inline_asm_elementwise("griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
        gl.inline_asm_elementwise("griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)


@gluon.jit
def _ask(desc, low, high, k, bar, buf, s):
    """Two halves of a tile."""
    tma.async_copy_global_to_shared(desc, [low, k], bar, buf.index(2 * s))
    tma.async_copy_global_to_shared(desc, [high, k], bar, buf.index(2 * s + 1))


@gluon.jit
def _copy_weights(d0, d1, d2, total, heights, b0, b1, b2, full, empty, WIDTH: gl.constexpr, K: gl.constexpr,
                  P0: gl.constexpr, P1: gl.constexpr, P2: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    WIDE: gl.constexpr = P0 + P1 + P2
    it = 0
    for i in range(gl.program_id(0), total, gl.num_programs(0)):
        n = i // heights * WIDE
        for k in range(0, K, 64):
            s = it % STAGES
            mbarrier.wait(empty.index(s), ((it // STAGES) & 1) ^ 1)
            bar = full.index(s)
            mbarrier.expect(bar, 2 * WIDE * 128)
            _ask(d0, n, WIDTH + n, k, bar, b0, s)
            if P1:
                _ask(d1, n + P0, WIDTH + n + P0, k, bar, b1, s)
            if P2:
                _ask(d2, n + P0 + P1, WIDTH + n + P0 + P1, k, bar, b2, s)
            it += 1


@gluon.jit
def _copy_rows(xd, total, heights, buf, full, empty, K: gl.constexpr, STAGES: gl.constexpr, CHAINED: gl.constexpr):
    _follow(CHAINED)
    it = 0
    for i in range(gl.program_id(0), total, gl.num_programs(0)):
        row = i % heights * 128
        for k in range(0, K, 64):
            s = it % STAGES
            mbarrier.wait(empty.index(s), ((it // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(s), 128 * 128)
            _ask(xd, row, row + 64, k, full.index(s), buf, s)
            it += 1


@gluon.jit
def _store(acc, row, n, out, M, WIDTH: gl.constexpr):
    """silu(gate) * up of a piece whose first output is `n`."""
    P: gl.constexpr = acc.shape[1] // 2
    dtype: gl.constexpr = out.dtype.element_ty
    gate, up = acc.reshape([64, 2, P]).permute((0, 2, 1)).split()
    # why: the reference rounds both halves to the dtype
    gate, up = gate.to(dtype).to(gl.float32), up.to(dtype).to(gl.float32)
    y = gate / (1.0 + gl.exp(-gate)) * up
    m = row + gl.arange(0, 64, layout=gl.SliceLayout(1, y.type.layout))
    n = n + gl.arange(0, P, layout=gl.SliceLayout(0, y.type.layout))
    gl.store(out + m.to(gl.int64)[:, None] * WIDTH + n[None, :], y.to(dtype), (m < M)[:, None] & (n < WIDTH)[None, :])


@gluon.jit
def _multiply(half: gl.constexpr, total, heights, out, M, x_buf, w0, w1, w2, x_full, w_full, empty, WIDTH: gl.constexpr,
              K: gl.constexpr, P0: gl.constexpr, P1: gl.constexpr, P2: gl.constexpr, STAGES: gl.constexpr,
              CHAINED: gl.constexpr):  # fmt: skip
    L0: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * P0, 16])
    L1: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * P1 if P1 else 16, 16])
    L2: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 2 * P2 if P2 else 16, 16])
    PIECES: gl.constexpr = 1 + (P1 > 0) + (P2 > 0)
    _follow(CHAINED)
    it = 0
    for i in range(gl.program_id(0), total, gl.num_programs(0)):
        a0 = gl.full([64, 2 * P0], 0.0, gl.float32, layout=L0)
        a1, a2 = a0, a0
        if P1:
            a1 = gl.full([64, 2 * P1], 0.0, gl.float32, layout=L1)
        if P2:
            a2 = gl.full([64, 2 * P2], 0.0, gl.float32, layout=L2)
        for k in range(0, K, 64):
            s = it % STAGES
            mbarrier.wait(w_full.index(s), (it // STAGES) & 1)
            mbarrier.wait(x_full.index(s), (it // STAGES) & 1)
            x = x_buf.index(2 * s + half)
            a0 = warpgroup_mma(x, w0.index(s).permute((1, 0)), a0, is_async=True)
            if P1:
                a1 = warpgroup_mma(x, w1.index(s).permute((1, 0)), a1, is_async=True)
            if P2:
                a2 = warpgroup_mma(x, w2.index(s).permute((1, 0)), a2, is_async=True)
                a0, a1, a2 = warpgroup_mma_wait(PIECES, deps=(a0, a1, a2))
            elif P1:
                a0, a1 = warpgroup_mma_wait(PIECES, deps=(a0, a1))
            else:
                a0 = warpgroup_mma_wait(PIECES, deps=(a0,))
            # why: the products of the step before are done
            mbarrier.arrive(empty.index((it + STAGES - 1) % STAGES), count=1, pred=k > 0)
            it += 1
        if P2:
            a0, a1, a2 = warpgroup_mma_wait(0, deps=(a0, a1, a2))
        elif P1:
            a0, a1 = warpgroup_mma_wait(0, deps=(a0, a1))
        else:
            a0 = warpgroup_mma_wait(0, deps=(a0,))
        mbarrier.arrive(empty.index((it + STAGES - 1) % STAGES), count=1)
        row, n = i % heights * 128 + half * 64, i // heights * (P0 + P1 + P2)
        _store(a0, row, n, out, M, WIDTH)
        if P1:
            _store(a1, row, n + P0, out, M, WIDTH)
        if P2:
            _store(a2, row, n + P0 + P1, out, M, WIDTH)


@gluon.jit(do_not_specialize=["M", "total", "heights"])
def _gated(d0, d1, d2, xd, out, M, total, heights, WIDTH: gl.constexpr, K: gl.constexpr, P0: gl.constexpr,
           P1: gl.constexpr, P2: gl.constexpr, STAGES: gl.constexpr, CHAINED: gl.constexpr,
           num_warps: gl.constexpr):  # fmt: skip
    dtype: gl.constexpr = xd.dtype
    b0 = gl.allocate_shared_memory(dtype, [2 * STAGES, P0, 64], d0.layout)
    w0 = b0._reinterpret(dtype, [STAGES, 2 * P0, 64], d0.layout)
    b1, w1, b2, w2 = b0, w0, b0, w0
    if P1:
        b1 = gl.allocate_shared_memory(dtype, [2 * STAGES, P1, 64], d0.layout)
        w1 = b1._reinterpret(dtype, [STAGES, 2 * P1, 64], d0.layout)
    if P2:
        b2 = gl.allocate_shared_memory(dtype, [2 * STAGES, P2, 64], d0.layout)
        w2 = b2._reinterpret(dtype, [STAGES, 2 * P2, 64], d0.layout)
    x_buf = gl.allocate_shared_memory(dtype, [2 * STAGES, 64, 64], xd.layout)
    bar: gl.constexpr = mbarrier.MBarrierLayout()
    w_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    x_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    for s in gl.static_range(STAGES):
        mbarrier.init(w_full.index(s), count=1)
        mbarrier.init(x_full.index(s), count=1)
        mbarrier.init(empty.index(s), count=2)
    fence_async_shared()
    gl.thread_barrier()
    gl.warp_specialize(
        [
            (_multiply, (gl.constexpr(0), total, heights, out, M, x_buf, w0, w1, w2, x_full, w_full, empty, WIDTH, K,
                         P0, P1, P2, STAGES, CHAINED)),
            (_multiply, (gl.constexpr(1), total, heights, out, M, x_buf, w0, w1, w2, x_full, w_full, empty, WIDTH, K,
                         P0, P1, P2, STAGES, CHAINED)),
            (_copy_weights, (d0, d1, d2, total, heights, b0, b1, b2, w_full, empty, WIDTH, K, P0, P1, P2, STAGES)),
            (_copy_rows, (xd, total, heights, x_buf, x_full, empty, K, STAGES, CHAINED)),
        ],
        [4, 1, 1],
        [240, 24, 24],
    )  # fmt: skip


_LAYOUT = gl.NVMMASharedLayout(128, 16, rank=2)
_SHARED = 226 << 10
_PIECES = {128: (128, 0, 0), 112: (64, 32, 16), 96: (64, 32, 0), 80: (64, 16, 0), 64: (64, 0, 0)}
"""Gates of a tile: how they are made of powers of two."""
_FULL = 0.8
"""Least part of the processors' rounds that must be work."""


@functools.cache
def gates_of(outputs: int, heights: int, processors: int) -> int | None:
    """Gates of a tile, so that all tiles read least and leave few processors idle. None: any leave too many idle."""
    found = []
    for gates in _PIECES:
        tiles = -(-outputs // gates) * heights
        rounds = -(-tiles // processors)
        if tiles >= _FULL * rounds * processors:
            found.append((rounds * (2 * gates + 128), gates))
    return min(found)[1] if found else None


def can(x: torch.Tensor, weight_JK: torch.Tensor) -> bool:
    """Whether `gated` serves; the chip has been asked before."""
    (outputs, inputs), heights = weight_JK.shape, -(-x.shape[0] // 128)
    is_half = x.dtype in (torch.bfloat16, torch.float16) and weight_JK.dtype == x.dtype
    whole = inputs % 64 == 0 and outputs % 16 == 0 and x.stride(0) % 8 == 0 and x.data_ptr() % 16 == 0
    return is_half and whole and gates_of(outputs // 2, heights, the_chip().processors) is not None


def try_out() -> None:
    """Run a small call. Raises whatever this Triton says of it."""
    x, w = (torch.zeros((rows, 64), dtype=torch.bfloat16, device="cuda") for rows in (2, 256))
    gated(x, w, 112)


def gated(x: torch.Tensor, weight_JK: torch.Tensor, gates: int | None = None) -> torch.Tensor:
    """silu(gate) * up of x W^T = [gate | up]: [rows, J / 2]."""
    (rows, inputs), outputs = x.shape, weight_JK.shape[0] // 2
    heights, processors = -(-rows // 128), the_chip().processors
    gates = gates or gates_of(outputs, heights, processors)
    assert gates is not None, "`can` has said so"
    pieces, total = _PIECES[gates], -(-outputs // gates) * heights
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    weights = [TensorDescriptor.from_tensor(weight_JK, [p or pieces[0], 64], _LAYOUT) for p in pieces]
    _gated[(min(total, processors),)](
        *weights, TensorDescriptor.from_tensor(x, [64, 64], _LAYOUT), out, rows, total, heights, outputs, inputs,
        *pieces, _SHARED // ((2 * gates + 128) * 128), IS_CHAINED, num_warps=4, **CHAINED,
    )  # fmt: skip
    return out
