"""Linear maps of few rows on a GPU: weights are read once, at the speed of memory; many rows go to the library.

    program (tile of outputs, share of K): W x^T of the share in float32
      ─▶ the last program of a tile adds the shares ─▶ norm before, activation, residual, norm behind

Weights are the first operand, so that the wide tensor-core products of Hopper take them from shared memory as they are
and a row costs a column. Shares are added in a fixed order, so a result does not depend on who came last. The same
kernel with Hopper's copy engine: `linear_hopper.py`; for 65 to 128 tokens in e4m3: `linear_wide_e4m3.py`. One row or
two of a small weight: a program holds all it needs of the weight before its turn (`_lone`). Tiles: `tiles.py`.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from vllm.ops.fold import Folded, Map, fold, folded_linear, folded_linear_mul, linear_fold
from vllm.ops.linear import linear
from vllm.ops.linear_fp8 import Fp8Weight
from vllm.ops.quantize import Quantized
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, behind, follow, lead, tickets
from vllm.ops.triton.linear_hopper import HAS_COPY_ENGINE, run_hopper
from vllm.ops.triton.linear_hopper_e4m3 import run_hopper_e4m3
from vllm.ops.triton.linear_wide_e4m3 import can_wide, run_wide_e4m3, serves_wide
from vllm.ops.triton.round import in_e4m3
from vllm.ops.triton.small import GROUP, empty_small, group_of, height_of, in_columns
from vllm.ops.triton.tiles import Tile, most_rows, tile_of
from vllm.util.arith import cdiv, next_power_of_2

_SHARED = 200 << 10


@triton.jit
def _few(x, w, rates, bias, squares, hidden, norm, out, scaled, sums, parts, tickets, factors, scales, M, x_stride, eps,
         N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLITS: tl.constexpr,
         STAGES: tl.constexpr, FOLDED: tl.constexpr, FP: tl.constexpr, ACT: tl.constexpr, ADD: tl.constexpr,
         BIAS: tl.constexpr, SMALL: tl.constexpr, EVEN: tl.constexpr, G: tl.constexpr, HEIGHT: tl.constexpr,
         SHRINK: tl.constexpr):  # fmt: skip
    """`G`: columns of x that share a scale of `factors`; 0: x is not e4m3. `SHRINK`: what leaves for a map is e4m3."""
    tile, split = tl.program_id(0), tl.program_id(1)
    O: tl.constexpr = N // 2 if ACT else N  # noqa: E741
    share: tl.constexpr = (K + BK * SPLITS - 1) // (BK * SPLITS) * BK
    row, m, k = tl.arange(0, BN), tl.arange(0, BM), tl.arange(0, BK)
    n = tile * BN + row
    start = w + (tile * BN).to(tl.int64) * K + split * share
    follow()
    there = (m < M)[None, :]
    x += split * share
    acc = tl.zeros((BN, BM), tl.float32)
    second = tl.zeros((BN, BM), tl.float32)
    for i in tl.range(0, share, BK, num_stages=STAGES):
        at = i + k
        spot = row[:, None] * K + at[None, :]
        if EVEN:
            weight = tl.load(start + spot, eviction_policy="evict_first")
            value = tl.load(x + m[None, :] * x_stride + at[:, None], there, 0.0)
        else:
            inside = (n[:, None] < O) & (split * share + at[None, :] < K)
            weight = tl.load(start + spot, inside, 0.0, eviction_policy="evict_first")
            value = tl.load(x + m[None, :] * x_stride + at[:, None], there & (split * share + at[:, None] < K), 0.0)
        if G:
            factor = tl.load(factors + (split * share + i) // G * HEIGHT + m, m < M, 0.0)[None, :]
            acc += tl.dot(weight, value) * factor
        else:
            acc = tl.dot(weight.to(x.dtype.element_ty), value, acc)
        if ACT:
            if EVEN:
                weight = tl.load(start + O * K + spot, eviction_policy="evict_first")
            else:
                weight = tl.load(start + O * K + spot, inside, 0.0, eviction_policy="evict_first")
            if G:
                second += tl.dot(weight, value) * factor
            else:
                second = tl.dot(weight.to(x.dtype.element_ty), value, second)
    there = there & (n[:, None] < O)
    if SPLITS > 1:
        spot = m[None, :] * N + n[:, None]
        tl.store(parts + split * BM * N + spot, acc, n[:, None] < O)
        if ACT:
            tl.store(parts + split * BM * N + O + spot, second, n[:, None] < O)
        tl.debug_barrier()
        if tl.atomic_add(tickets + tile, 1) != SPLITS - 1:
            return
        tl.store(tickets + tile, 0)
        acc = tl.zeros((BN, BM), tl.float32)
        second = tl.zeros((BN, BM), tl.float32)
        for s in tl.static_range(SPLITS):
            acc += tl.load(parts + s * BM * N + spot, n[:, None] < O, 0.0, cache_modifier=".cg")
            if ACT:
                second += tl.load(parts + s * BM * N + O + spot, n[:, None] < O, 0.0, cache_modifier=".cg")
    if SMALL:
        acc *= tl.load(rates + n, n < O, 0.0)[:, None]
        if ACT:
            second *= tl.load(rates + O + n, n < O, 0.0)[:, None]
    if FOLDED:
        s = tl.arange(0, FP)
        total = tl.load(squares + s[:, None] * M + m[None, :], (s[:, None] < FOLDED) & (m[None, :] < M), 0.0)
        factor = tl.rsqrt(tl.sum(total, 0) / K + eps)[None, :]
        acc, second = acc * factor, second * factor
    if BIAS:
        acc += tl.load(bias + n, n < O, 0.0).to(tl.float32)[:, None]
    spot = m[None, :] * O + n[:, None]
    if ACT:
        # why: the reference rounds both halves to the dtype
        gate, up = acc.to(out.dtype.element_ty).to(tl.float32), second.to(out.dtype.element_ty).to(tl.float32)
        acc = gate / (1.0 + tl.exp(-gate)) * up
    if ADD:
        y = acc.to(out.dtype.element_ty) + tl.load(hidden + spot, there, 0.0)
        wide = tl.where(there, y.to(tl.float32), 0.0)
        tl.store(sums + tile * M + m, tl.sum(wide * wide, 0), m < M)
        tl.store(out + spot, y, there)
        acc = wide * tl.load(norm + n, n < O, 0.0)[:, None]
        if SHRINK == 0:
            tl.store(scaled + spot, acc.to(out.dtype.element_ty), there)
    elif SHRINK == 0:
        tl.store(out + spot, acc.to(out.dtype.element_ty), there)
    if SHRINK:
        acc = acc if ADD else acc.to(out.dtype.element_ty).to(tl.float32)
        small, most = in_e4m3(acc, 0)
        tl.store(scaled + spot, small.to(scaled.dtype.element_ty), there)
        tl.store(scales + tile * HEIGHT + m, most, m < M)


@triton.jit
def _lone(x, w, rates, bias, squares, hidden, norm, out, scaled, sums, x_stride, eps, N: tl.constexpr,
          K: tl.constexpr, KP: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr, FOLDED: tl.constexpr,
          FP: tl.constexpr, ACT: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr,
          SMALL: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    lead()
    O: tl.constexpr = N // 2 if ACT else N  # noqa: E741
    n, k = tile * BN + tl.arange(0, BN), tl.arange(0, KP)
    spot = n[:, None] * K + k[None, :]
    inside = (n[:, None] < O) & (k[None, :] < K)
    weight = tl.load(w + spot, inside, 0.0, eviction_policy="evict_first")
    other = weight
    if ACT:
        other = tl.load(w + O * K + spot, inside, 0.0, eviction_policy="evict_first")
    after = tl.load(norm + n, n < O, 0.0) if ADD else 0.0
    rate = tl.load(rates + n, n < O, 0.0) if SMALL else 1.0
    beside = tl.load(rates + O + n, n < O, 0.0) if SMALL and ACT else 1.0
    behind()
    for row in tl.static_range(ROWS):
        value = tl.load(x + row * x_stride + k, k < K, 0.0).to(tl.float32)[None, :]
        at = row * O + n
        stream = tl.load(hidden + at, n < O, 0.0) if ADD else 0.0
        acc = tl.sum(weight.to(tl.float32) * value, 1)
        second = tl.sum(other.to(tl.float32) * value, 1) if ACT else acc
        if SMALL:
            acc, second = acc * rate, second * beside
        if FOLDED:
            s = tl.arange(0, FP)
            factor = tl.rsqrt(tl.sum(tl.load(squares + s * ROWS + row, s < FOLDED, 0.0), 0) / K + eps)
            acc, second = acc * factor, second * factor
        if BIAS:
            acc += tl.load(bias + n, n < O, 0.0).to(tl.float32)
        if ACT:
            # why: the reference rounds both halves to the dtype
            gate, up = acc.to(out.dtype.element_ty).to(tl.float32), second.to(out.dtype.element_ty).to(tl.float32)
            acc = gate / (1.0 + tl.exp(-gate)) * up
        if ADD:
            y = acc.to(out.dtype.element_ty) + stream
            wide = tl.where(n < O, y.to(tl.float32), 0.0)
            tl.store(scaled + at, (wide * after).to(out.dtype.element_ty), n < O)
            tl.store(sums + tile * ROWS + row, tl.sum(wide * wide, 0))
            tl.store(out + at, y, n < O)
        else:
            tl.store(out + at, acc.to(out.dtype.element_ty), n < O)


@triton.jit
def _fold(hidden, weight, ids, stream, scaled, squares, scales, E: tl.constexpr, EP: tl.constexpr, G: tl.constexpr,
          HEIGHT: tl.constexpr, IDS: tl.constexpr):  # fmt: skip
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, EP)
    follow()
    value = tl.load(hidden + (tl.load(ids + row) if IDS else row) * E + e, e < E, 0.0)
    if IDS:
        tl.store(stream + row * E + e, value, e < E)
    value = value.to(tl.float32)
    tl.store(squares + row, tl.sum(value * value, 0))
    value *= tl.load(weight + e, e < E, 0.0)
    if G:
        small, most = in_e4m3(tl.reshape(value, (EP // G, G)), 1)
        g = tl.arange(0, EP // G)
        tl.store(scales + g * HEIGHT + row, most, g < E // G)
        value = tl.reshape(small, (EP,))
    tl.store(scaled + row * E + e, value.to(scaled.dtype.element_ty), e < E)


def _when(target: Target) -> bool:
    return target.device == "cuda" and not target.deterministic and target.dtype is not torch.float32


def _may_fold(target: Target) -> bool:
    # why: w * h before its norm may be too large for float16
    return _when(target) and target.dtype is torch.bfloat16


@linear.kernel("triton", when=_when)
def linear_triton(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """See the op."""
    assert isinstance(packed, torch.Tensor)
    tile = None if x_TE.dtype is torch.float32 else tile_of(*packed.shape, x_TE.shape[0])
    return F.linear(x_TE, packed, bias_O) if tile is None else few(x_TE, packed, tile, bias=bias_O)


def few(
    x: torch.Tensor | Quantized,
    weight: torch.Tensor,
    tile: Tile,
    *,
    rates: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    folded: Folded | None = None,
    eps: float = 0.0,
    act: bool = False,
    out: torch.Tensor | None = None,
    following: tuple[torch.Tensor, torch.Tensor | Quantized, torch.Tensor] | None = None,
) -> torch.Tensor | Quantized:
    """The kernel. `rates`: scales of the rows of an e4m3 weight. `folded`: x is `folded.scaled`. `following`: (weight
    of the norm behind, its `scaled`, its sums). Where x is e4m3, so is what leaves for another map.
    """
    rows, (outputs, inputs) = x.shape[0], weight.shape
    wide, height, device = outputs // 2 if act else outputs, height_of(rows), weight.device
    small = empty_small(rows, wide, tile.bn, x.dtype, device) if act and isinstance(x, Quantized) else None
    if following is not None and isinstance(following[1], Quantized):
        small = following[1]
    hidden = out
    if out is None:
        out = torch.empty((rows, wide) if small is None else 0, dtype=x.dtype, device=device)
    norm, scaled, sums = following if following is not None else (out, out, out)
    shares = 0 if folded is None else folded.squares.shape[0]
    folds = shares, next_power_of_2(max(1, shares)), act, following is not None, bias is not None
    memory = (
        out if rates is None else rates,
        out if bias is None else bias,
        out if folded is None else folded.squares,
        out if hidden is None else hidden,
        norm,
        out,
        scaled if small is None else small.values,
        sums,
    )
    if tile.way == "lone" and isinstance(x, torch.Tensor):
        _lone[(cdiv(wide, tile.bn),)](
            x, weight, *memory, x.stride(0), eps, outputs, inputs, next_power_of_2(inputs), rows, tile.bn,
            *folds, rates is not None, num_warps=tile.warps, **CHAINED,
        )  # fmt: skip
        return out
    grid, parts, waiting = (cdiv(wide, tile.bn), tile.splits), out, out
    if tile.splits > 1:
        parts = torch.empty((tile.splits, max(16, height), outputs), dtype=torch.float32, device=device)
        waiting = tickets(device, grid[0])
    memory = *memory, parts, waiting
    even = wide % tile.bn == 0 and inputs % (tile.bk * tile.splits) == 0 and tile.way != "plain" and HAS_COPY_ENGINE
    if isinstance(x, Quantized):
        x = in_columns(x)
        if even and can_wide(grid, x, tile, height):
            run_wide_e4m3(grid, x, weight, memory, small, eps, tile, folds)
        elif even and tile.bk % group_of(x) == 0:
            run_hopper_e4m3(grid, x, weight, memory, small, eps, height, tile, folds)
        else:
            _run_twin(grid, x, weight, memory, small, eps, height, tile, folds)
    elif even and x.stride(0) % 8 == 0:
        run_hopper(grid, x, weight, memory, eps, height, tile, folds)
    else:
        _run_twin(grid, x, weight, memory, small, eps, height, tile, folds)
    return out if small is None or following is not None else small


def _run_twin(
    grid: tuple[int, int],
    x: torch.Tensor | Quantized,
    weight: torch.Tensor,
    memory: tuple[torch.Tensor, ...],
    small: Quantized | None,
    eps: float,
    height: int,
    tile: Tile,
    folds: tuple[int, int, bool, bool, bool],
) -> None:
    """`few`'s launch where there is no copy engine, or where it cannot read these tiles."""
    outputs, inputs = weight.shape
    values, factors, group = (x.values, x.scale, group_of(x)) if isinstance(x, Quantized) else (x, memory[0], 0)
    bk = min(tile.bk, group) if group else tile.bk
    even = outputs // (2 if folds[2] else 1) % tile.bn == 0 and inputs % (bk * tile.splits) == 0
    # why: tiles were chosen where a program may have 200 KiB of shared memory; other devices hold fewer of them
    each = (tile.bn * (2 if folds[2] else 1) * weight.itemsize + max(16, height) * values.itemsize) * bk
    stages = max(2, min(tile.stages, (_SHARED if HAS_COPY_ENGINE else _SHARED // 2) // each))
    _few[grid](
        values, weight, *memory, factors, memory[0] if small is None else small.scale, x.shape[0], values.stride(0),
        eps, outputs, inputs, max(16, height), tile.bn, bk, tile.splits, stages, *folds, weight.itemsize == 1, even,
        group, height, small is not None, num_warps=tile.warps, num_stages=stages, **CHAINED,
    )  # fmt: skip


def _parts(packed: object) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A weight, and the scales of its rows where it is e4m3."""
    if isinstance(packed, Fp8Weight):
        return packed.data_OE, packed.scale
    assert isinstance(packed, torch.Tensor)
    return packed, None


def _most(maps: list[Map]) -> int:
    """`most_rows`, where the kernel that it counts on beyond 64 serves."""
    rows = most_rows(maps)
    return rows if rows <= 64 or serves_wide() else 64


@fold.kernel("triton", when=_may_fold, most=_most)
def fold_triton(
    hidden_TE: torch.Tensor, weight_E: torch.Tensor, small: bool = False, ids_T: torch.Tensor | None = None
) -> Folded:
    """See the op."""
    source = hidden_TE.contiguous()
    rows, dim = source.shape[0] if ids_T is None else ids_T.shape[0], source.shape[1]
    stream = source if ids_T is None else source.new_empty((rows, dim))
    squares = torch.empty((1, rows), dtype=torch.float32, device=source.device)
    scaled = empty_small(rows, dim, GROUP, source.dtype, source.device) if small else torch.empty_like(stream)
    values, scales = (scaled.values, scaled.scale) if isinstance(scaled, Quantized) else (scaled, squares)
    _fold[(rows,)](
        source, weight_E, source if ids_T is None else ids_T, stream, values, squares, scales, dim,
        next_power_of_2(dim), GROUP if small else 0, height_of(rows), ids_T is not None, num_warps=4, **CHAINED,
    )  # fmt: skip
    return Folded(stream, scaled, squares)


@folded_linear.kernel("triton", when=_may_fold)
def folded_linear_triton(f: Folded, eps: float, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """See the op."""
    weight, rates = _parts(packed)
    tile = tile_of(*weight.shape, f.hidden.shape[0], must=True, small=isinstance(f.scaled, Quantized))
    assert tile is not None
    return few(f.scaled, weight, tile, rates=rates, bias=bias_O, folded=f, eps=eps)  # type: ignore[return-value]


@folded_linear_mul.kernel("triton", when=_may_fold)
def folded_linear_mul_triton(f: Folded, eps: float, packed: object) -> torch.Tensor | Quantized:
    """See the op."""
    weight, rates = _parts(packed)
    tile = tile_of(*weight.shape, f.hidden.shape[0], must=True, act=True, small=isinstance(f.scaled, Quantized))
    assert tile is not None
    return few(f.scaled, weight, tile, rates=rates, folded=f, eps=eps, act=True)


@linear_fold.kernel("triton", when=_may_fold)
def linear_fold_triton(
    x_TI: torch.Tensor | Quantized, packed: object, hidden_TE: torch.Tensor, weight_E: torch.Tensor
) -> Folded:
    """See the op; the sum takes the place of h."""
    weight, rates = _parts(packed)
    rows, outputs = hidden_TE.shape
    tile = tile_of(*weight.shape, rows, must=True, small=isinstance(x_TI, Quantized))
    assert tile is not None
    scaled: torch.Tensor | Quantized = torch.empty_like(hidden_TE)
    if isinstance(x_TI, Quantized):
        scaled = empty_small(rows, outputs, tile.bn, hidden_TE.dtype, hidden_TE.device)
    sums = torch.empty((cdiv(outputs, tile.bn), rows), dtype=torch.float32, device=hidden_TE.device)
    few(x_TI, weight, tile, rates=rates, out=hidden_TE, following=(weight_E, scaled, sums))
    return Folded(hidden_TE, scaled, sums)
