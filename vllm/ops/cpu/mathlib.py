"""exp, log, tanh, erf and the activations on vectors: float32, a few ulp, the same on every lane.

Polynomials over reduced ranges; no tables, no branches. Called by: the kernels beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllm.ops.cpu.lang import Trace
from vllm.ops.cpu.values import F32, I32, Val

_LN2_HIGH, _LN2_LOW, _LOG2E = 0.693359375, -2.12194440e-4, 1.44269504088896341
_EXP_LOW, _EXP_HIGH = -87.33654, 88.72283


def poly(k: Trace, x: Val, coefficients: Sequence[float]) -> Val:
    """Horner's rule, highest power first."""
    out = k.f32(coefficients[0], x.lanes)
    for c in coefficients[1:]:
        out = k.fma(out, x, k.f32(c, x.lanes))
    return out


def exp(k: Trace, x: Val) -> Val:
    """e^x; 0 for -inf and all x below the smallest normal result."""
    lanes = x.lanes
    held = k.minimum(k.maximum(x, k.f32(_EXP_LOW, lanes)), k.f32(_EXP_HIGH, lanes))
    n = k.round(held * _LOG2E)
    r = k.fma(n, k.f32(-_LN2_HIGH, lanes), held)
    r = k.fma(n, k.f32(-_LN2_LOW, lanes), r)
    p = poly(k, r, (1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0))
    # why: 2^n for n = 128 is no float, so one factor of two is put aside
    scale = ((n.to("i32") + 126) << 23).bits(F32)
    return (x < _EXP_LOW).where(0.0, p * scale * 2.0)


def log(k: Trace, x: Val) -> Val:
    """Natural logarithm of a positive normal number (Cephes' polynomial on [sqrt(1/2), sqrt(2)))."""
    lanes = x.lanes
    u = x.bits(I32)
    shifted = u - 0x3F3504F3
    e = Val(k, k.b.ashr(shifted.v, k.i32(23, lanes).v)).to("f32")
    m = ((shifted & 0x007FFFFF) + 0x3F3504F3).bits(F32) - 1.0
    p = poly(
        k,
        m,
        (
            *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
            *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
        ),
    )
    m2 = m * m
    y = m * m2 * p
    y = k.fma(e, k.f32(_LN2_LOW, lanes), y)
    y = k.fma(m2, k.f32(-0.5, lanes), y)
    return k.fma(e, k.f32(_LN2_HIGH, lanes), m + y)


def log1m(k: Trace, u: Val) -> Val:
    """log(1 - u) for u in [0, 1): exact where u is small."""
    y = 1.0 - u
    # why: 1 - u loses low bits of u; the quotient puts them back (Kahan)
    lost = (1.0 - y) - u
    return log(k, y) + lost / y


def tanh(k: Trace, x: Val) -> Val:
    """Hyperbolic tangent: a rational function held to [-9, 9]."""
    lanes = x.lanes
    small = k.maximum(k.minimum(x, k.f32(9.0, lanes)), k.f32(-9.0, lanes))
    x2 = small * small
    top = poly(
        k,
        x2,
        (
            *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
            *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
        ),
    )
    low = poly(k, x2, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03))
    return small * top / low


def erf(k: Trace, x: Val) -> Val:
    """Error function by Abramowitz and Stegun 7.1.26 in exponent form, |error| < 2e-7 absolute."""
    lanes = x.lanes
    a = k.abs(x)
    t = 1.0 / k.fma(a, k.f32(0.3275911, lanes), k.f32(1.0, lanes))
    p = poly(k, t, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0))
    y = 1.0 - p * exp(k, -(a * a))
    return (x < 0.0).where(-y, y)


def activation(k: Trace, name: str, x: Val) -> Val:
    """silu, gelu, gelu_tanh, relu or relu2."""
    if name == "silu":
        return x / (1.0 + exp(k, -x))
    if name == "gelu":
        return x * 0.5 * (1.0 + erf(k, x * 0.70710678118654752))
    if name == "gelu_tanh":
        inner = x * 0.79788456080286536 * (1.0 + 0.044715 * x * x)
        return 0.5 * x * (1.0 + tanh(k, inner))
    held = k.maximum(x, k.f32(0.0, x.lanes))
    return held if name == "relu" else held * held
