"""Inputs of fp8 linear maps on a GPU: norm, residual and activation in the pass that quantizes, one program per row.
Few wide rows of activations take two passes by many programs.

Groups are powers of two here; other sizes go through the references. A row is rounded to its dtype before it is
quantized, as the references do, so a value differs from theirs only where a sum lies next to the middle of two.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.quantize import (
    FP8,
    Intake,
    Quantized,
    activate_mul_quantize,
    add_rms_norm_quantize,
    quantize,
    rms_norm_quantize,
)
from vllm.ops.table import Target
from vllm.ops.triton.activation import KINDS, gated
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.round import round_e4m3
from vllm.util.arith import cdiv, next_power_of_2


@triton.jit
def _shrink(y, values, scales, static, row, e, E: tl.constexpr, EP: tl.constexpr, G: tl.constexpr,
            STATIC: tl.constexpr):  # fmt: skip
    """Store a row (float32) as e4m3, and its scales."""
    if STATIC:
        small = tl.div_rn(y, tl.load(static))
    elif G:
        groups: tl.constexpr = EP // G
        pieces = tl.reshape(y, (groups, G))
        most = tl.max(tl.abs(pieces), 1)
        back = tl.where(most > 0.0, tl.div_rn(1.0, tl.where(most > 0.0, most, 1.0)) * 448.0, 0.0)
        small = tl.reshape(pieces * back[:, None], (EP,))
        g = tl.arange(0, groups)
        used: tl.constexpr = (E + G - 1) // G
        tl.store(scales + row * used + g, most * 0.002232142857142857, g < used)
    else:
        most = tl.max(tl.abs(y), 0)
        small = y * tl.where(most > 0.0, tl.div_rn(1.0, tl.where(most > 0.0, most, 1.0)) * 448.0, 0.0)
        tl.store(scales + row, most * 0.002232142857142857)
    small = tl.minimum(tl.maximum(small, -448.0), 448.0)
    tl.store(values + row * E + e, round_e4m3(small).to(values.dtype.element_ty), e < E)


@triton.jit
def _quantize(x, values, scales, static, x_stride, E: tl.constexpr, EP: tl.constexpr, G: tl.constexpr,
              STATIC: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EP)
    follow()
    y = tl.load(x + row * x_stride + e, e < E, 0.0).to(tl.float32)
    _shrink(y, values, scales, static, row, e, E, EP, G, STATIC)


@triton.jit
def _norm(x, residual, weight, values, scales, static, x_stride, r_stride, eps, E: tl.constexpr, EP: tl.constexpr,
          G: tl.constexpr, STATIC: tl.constexpr, WEIGHT: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EP)
    follow()
    value = tl.load(x + row * x_stride + e, e < E, 0.0)
    if ADD:
        value = value + tl.load(residual + row * r_stride + e, e < E, 0.0)
        tl.store(residual + row * r_stride + e, value, e < E)
    wide = value.to(tl.float32)
    y = wide * tl.rsqrt(tl.sum(wide * wide, 0) / E + eps)
    if WEIGHT:
        y = y * tl.load(weight + e, e < E, 0.0)
    _shrink(y.to(x.dtype.element_ty).to(tl.float32), values, scales, static, row, e, E, EP, G, STATIC)


@triton.jit
def _activate(x, values, scales, static, x_stride, I: tl.constexpr, IP: tl.constexpr, G: tl.constexpr,  # noqa: E741
              STATIC: tl.constexpr, KIND: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, IP)
    follow()
    gate = tl.load(x + row * x_stride + i, i < I, 0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + I + i, i < I, 0.0).to(tl.float32)
    y = gated(gate, up, KIND).to(x.dtype.element_ty).to(tl.float32)
    _shrink(y, values, scales, static, row, i, I, IP, G, STATIC)


@triton.jit
def _activate_part(x, y, most, x_stride, I: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,  # noqa: E741
                   KIND: tl.constexpr):  # fmt: skip
    """A part of a row, not quantized yet, and its largest magnitude."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = part * BLOCK + tl.arange(0, BLOCK)
    follow()
    gate = tl.load(x + row * x_stride + i, i < I, 0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + I + i, i < I, 0.0).to(tl.float32)
    value = gated(gate, up, KIND).to(y.dtype.element_ty)
    tl.store(y + row * I + i, value, i < I)
    tl.store(most + row * PARTS + part, tl.max(tl.abs(value.to(tl.float32)), 0))


@triton.jit
def _finish(y, most, values, scales, I: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,  # noqa: E741
            PP: tl.constexpr):  # fmt: skip
    """Quantize a part of a row by the largest magnitude of all of its parts."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i, p = part * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PP)
    follow()
    largest = tl.max(tl.load(most + row * PARTS + p, p < PARTS, 0.0), 0)
    back = tl.where(largest > 0.0, tl.div_rn(1.0, tl.where(largest > 0.0, largest, 1.0)) * 448.0, 0.0)
    small = tl.load(y + row * I + i, i < I, 0.0).to(tl.float32) * back
    small = round_e4m3(tl.minimum(tl.maximum(small, -448.0), 448.0))
    tl.store(values + row * I + i, small.to(values.dtype.element_ty), i < I)
    if part == 0:
        tl.store(scales + row, largest * 0.002232142857142857)


_PART = 2048
"""Elements of a part of a row."""
_FEW = 256
"""Rows up to which one program per row leaves the device idle, so that two passes by many are faster."""

_MANY = 1024
"""Rows from which a norm is bound by memory and more threads a row read it faster."""


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (8, 9)


def _warps(width: int) -> int:
    return 1 if width <= 512 else 4 if width <= 2048 else 8


def can_quantize(intake: Intake) -> bool:
    """These kernels serve such an intake."""
    return intake.group == 0 or (intake.group & (intake.group - 1)) == 0


def _room(rows: int, width: int, dtype: torch.dtype, device: torch.device, intake: Intake) -> Quantized:
    """Where the result goes."""
    values = torch.empty((rows, width), dtype=FP8, device=device)
    if intake.static is not None:
        return Quantized(values, intake.static, dtype)
    shape = (rows, -(-width // intake.group)) if intake.group else (rows,)
    return Quantized(values, torch.empty(shape, dtype=torch.float32, device=device), dtype)


def _sizes(width: int, intake: Intake) -> tuple[int, int, int, bool]:
    return width, max(next_power_of_2(width), intake.group), intake.group, intake.static is not None


@quantize.kernel("triton", when=_on_gpu)
def quantize_triton(x_TE: torch.Tensor, intake: Intake) -> Quantized:
    """See the op."""
    if not can_quantize(intake):
        return quantize(x_TE, intake)  # type: ignore[no-any-return]
    rows, width = x_TE.shape
    out = _room(rows, width, x_TE.dtype, x_TE.device, intake)
    _quantize[(rows,)](
        x_TE, out.values, out.scale, out.scale, x_TE.stride(0), *_sizes(width, intake), num_warps=_warps(width),
        **CHAINED,
    )  # fmt: skip
    return out


@rms_norm_quantize.kernel("triton", when=_on_gpu)
def rms_norm_quantize_triton(
    x_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float, intake: Intake
) -> Quantized:
    """See the op."""
    if not can_quantize(intake):
        return rms_norm_quantize(x_TE, weight_E, eps, intake)  # type: ignore[no-any-return]
    rows, width = x_TE.shape
    out = _room(rows, width, x_TE.dtype, x_TE.device, intake)
    _norm[(rows,)](
        x_TE, x_TE, x_TE if weight_E is None else weight_E, out.values, out.scale, out.scale, x_TE.stride(0), 0, eps,
        *_sizes(width, intake), weight_E is not None, False, num_warps=_warps(width), **CHAINED,
    )  # fmt: skip
    return out


@add_rms_norm_quantize.kernel("triton", when=_on_gpu)
def add_rms_norm_quantize_triton(
    x_TE: torch.Tensor, residual_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float, intake: Intake
) -> tuple[torch.Tensor, Quantized]:
    """See the op; the sum takes the residual's place."""
    if not can_quantize(intake):
        return add_rms_norm_quantize(x_TE, residual_TE, weight_E, eps, intake)  # type: ignore[no-any-return]
    rows, width = x_TE.shape
    out = _room(rows, width, x_TE.dtype, x_TE.device, intake)
    _norm[(rows,)](
        x_TE, residual_TE, x_TE if weight_E is None else weight_E, out.values, out.scale, out.scale, x_TE.stride(0),
        residual_TE.stride(0), eps, *_sizes(width, intake), weight_E is not None, True,
        num_warps=16 if rows >= _MANY and width > 2048 else _warps(width), **CHAINED,
    )  # fmt: skip
    return residual_TE, out


@activate_mul_quantize.kernel("triton", when=_on_gpu)
def activate_mul_quantize_triton(x_TJ: torch.Tensor, act: str, intake: Intake) -> Quantized:
    """See the op."""
    if not can_quantize(intake):
        return activate_mul_quantize(x_TJ, act, intake)  # type: ignore[no-any-return]
    rows, half = x_TJ.shape[0], x_TJ.shape[1] // 2
    out = _room(rows, half, x_TJ.dtype, x_TJ.device, intake)
    parts = cdiv(half, _PART)
    if rows <= _FEW and parts > 1 and not intake.group and intake.static is None:
        y = torch.empty((rows, half), dtype=x_TJ.dtype, device=x_TJ.device)
        most = torch.empty((rows, parts), dtype=torch.float32, device=x_TJ.device)
        _activate_part[(rows, parts)](
            x_TJ, y, most, x_TJ.stride(0), half, _PART, parts, KINDS[act], num_warps=4, **CHAINED
        )
        _finish[(rows, parts)](
            y, most, out.values, out.scale, half, _PART, parts, next_power_of_2(parts), num_warps=4, **CHAINED
        )
        return out
    _activate[(rows,)](
        x_TJ, out.values, out.scale, out.scale, x_TJ.stride(0), *_sizes(half, intake), KINDS[act],
        num_warps=_warps(half), **CHAINED,
    )  # fmt: skip
    return out
