"""Linear maps that take in the norm before them and hand over to the norm behind them, so that no norm runs alone.

    h, w * h, sums of h^2  ──folded_linear──▶ y          norm(h) W^T = rsqrt(mean h^2 + eps) * ((w * h) W^T)
              ▲                    │ (or act(gate) * up of it)
              └──── linear_fold ◀──┘                     h += y W^T, in whose pass the next w * h and sums are made

The row factor is one number, so it can be applied behind the product. Only RMS norms are of that kind. Weights may be
e4m3 with a scale per row; inputs then are too, with a scale per token and 128 of them, or as they are: who makes x
makes it so where every map of a layer wants it, else each map for itself. T tokens,
E hidden, O outputs, S shares in which h^2 is summed. Called by: layers.
"""

from dataclasses import dataclass

import torch

from vllm.ops.activation import activate_mul
from vllm.ops.linear import linear
from vllm.ops.linear_fp8 import Fp8Weight, linear_fp8
from vllm.ops.moe import moe
from vllm.ops.quantize import Intake, Quantized, quantize
from vllm.ops.table import Tol, op

CASES = ((1, 64, 96), (5, 256, 512), (17, 1024, 768), (32, 512, 1000))
"""(T, E, O)"""
_GROUPS = Intake(group=128)
_TOL = Tol(f32=1e-5, bf16=2e-2, f16=4e-3)


@dataclass(slots=True)
class Folded:
    """A residual stream on its way into a norm."""

    hidden: torch.Tensor
    """[T, E]: h"""
    scaled: torch.Tensor | Quantized
    """[T, E]: h times the weight of the norm."""
    squares: torch.Tensor
    """[S, T] float32: sums of h^2, each over a share of the row."""


def _normed(f: Folded, factor_T1: torch.Tensor) -> torch.Tensor:
    assert isinstance(f.scaled, torch.Tensor), "only linear maps read a stream in e4m3"
    return (f.scaled.float() * factor_T1).to(f.hidden.dtype)


def _factor(f: Folded, eps: float) -> torch.Tensor:
    return torch.rsqrt(f.squares.sum(0) / f.hidden.shape[1] + eps)[:, None]


def _linear(x: torch.Tensor | Quantized, packed: object, bias: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(packed, Fp8Weight):
        x = x if isinstance(x, Quantized) else quantize(x, _GROUPS)
        return linear_fp8(x, packed, bias)  # type: ignore[no-any-return]
    return linear(x, packed, bias)  # type: ignore[no-any-return]


Map = tuple[int, int, bool, bool]
"""Outputs and inputs of a map; it is gated; its weight is e4m3."""


def _most(maps: list[Map]) -> int:
    """Most tokens for which folding pays in a layer of these maps. References never do it."""
    return 0


@op(tol=_TOL, cases=CASES, most=_most)
def fold(
    hidden_TE: torch.Tensor, weight_E: torch.Tensor, small: bool = False, ids_T: torch.Tensor | None = None
) -> Folded:
    """The stream `hidden` before a norm with `weight` (float32); `small`: every map of its blocks reads e4m3. With
    `ids` the stream is these rows of a table [V, E].
    """
    if ids_T is not None:
        hidden_TE = hidden_TE.index_select(0, ids_T)
    wide = hidden_TE.float()
    scaled, squares = wide * weight_E, wide.square().sum(-1)[None]
    if not small:
        return Folded(hidden_TE, scaled.to(hidden_TE.dtype), squares)
    shrunk = quantize(scaled, _GROUPS)
    return Folded(hidden_TE, Quantized(shrunk.values, shrunk.scale, hidden_TE.dtype), squares)


@op(tol=_TOL, cases=CASES)
def folded_linear(f: Folded, eps: float, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """norm(h) W^T + b: [T, O]."""
    if isinstance(f.scaled, Quantized):
        x = Quantized(f.scaled.values, f.scaled.scale * _factor(f, eps), f.scaled.dtype)
        return linear_fp8(x, packed, bias_O)  # type: ignore[no-any-return]
    return _linear(_normed(f, _factor(f, eps)), packed, bias_O)


@op(tol=_TOL, cases=CASES)
def folded_linear_mul(f: Folded, eps: float, packed: object) -> torch.Tensor | Quantized:
    """silu(gate) * up of norm(h) W^T = [gate | up]: [T, O / 2], e4m3 where the stream is."""
    y: torch.Tensor = activate_mul(folded_linear(f, eps, packed), "silu")
    return quantize(y, _GROUPS) if isinstance(f.scaled, Quantized) else y


@op(tol=_TOL, cases=CASES)
def linear_mul(x_TE: torch.Tensor, packed: object) -> torch.Tensor:
    """silu(gate) * up of x W^T = [gate | up], without a norm: [T, O / 2]."""
    return activate_mul(linear(x_TE, packed), "silu")  # type: ignore[no-any-return]


@op(tol=_TOL, cases=CASES)
def linear_fold(
    x_TI: torch.Tensor | Quantized, packed: object, hidden_TE: torch.Tensor, weight_E: torch.Tensor
) -> Folded:
    """The stream h + x W^T before a norm with `weight` (float32), e4m3 where x is. May overwrite h."""
    y: Folded = fold(hidden_TE + _linear(x_TI, packed), weight_E, isinstance(x_TI, Quantized))
    return y


@op(tol=_TOL, cases=CASES)
def folded_moe(
    f: Folded,
    eps: float,
    packed: object,
    top_k: int,
    renormalize: bool,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
    weight_E: torch.Tensor,
) -> Folded:
    """The stream h + moe(norm(h)) before a norm with `weight` (float32). May overwrite h."""
    y = moe(_normed(f, _factor(f, eps)), packed, top_k, renormalize, up_XJE, down_XEI, act)
    return fold(f.hidden + y, weight_E)  # type: ignore[no-any-return]
