"""Rounding to e4m3, where Triton does not do it by itself, and e4m3 with a scale for the values along an axis."""

import triton
import triton.language as tl

_TRUNCATES = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""The interpreter's conversion cuts bits off; a GPU's takes the nearest value."""


@triton.jit
def round_e4m3(y):
    """Float32 values that lie within e4m3, ready to be converted: the nearest ones in it, halves to even."""
    if _TRUNCATES:
        bits = y.to(tl.int32, bitcast=True)
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000).to(tl.float32, bitcast=True)
        y = tl.where(tl.abs(y) < 0.015625, (y + 24576.0) - 24576.0, normal)
    return y


@triton.jit
def in_e4m3(y, AXIS: tl.constexpr):
    """(values ready to be converted, the scales they are multiplied with) of float32 y, a scale for all along AXIS."""
    most = tl.max(tl.abs(y), AXIS)
    back = 448.0 / tl.where(most > 0.0, most, 448.0)
    return round_e4m3(y * tl.expand_dims(back, AXIS)), most * 0.002232142857142857
