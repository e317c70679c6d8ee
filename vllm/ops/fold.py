"""Linear maps that take in the norm before them and hand over to the norm behind them, so that no norm runs alone.

    h, w * h, sums of h^2  ──folded_linear──▶ y          norm(h) W^T = rsqrt(mean h^2 + eps) * ((w * h) W^T)
              ▲                    │ (or act(gate) * up of it)
              └──── linear_fold ◀──┘                     h += y W^T, in whose pass the next w * h and sums are made

The row factor is one number, so it can be applied behind the product. Only RMS norms are of that kind. T tokens,
E hidden, O outputs, S shares in which h^2 is summed. Called by: layers.
"""

from dataclasses import dataclass

import torch

from vllm.ops.activation import activate_mul
from vllm.ops.linear import linear
from vllm.ops.table import Tol, op

CASES = ((1, 64, 96), (5, 256, 512), (17, 1024, 768), (32, 512, 1000))
"""(T, E, O)"""
_TOL = Tol(f32=1e-5, bf16=2e-2, f16=4e-3)


@dataclass(slots=True)
class Folded:
    """A residual stream on its way into a norm."""

    hidden: torch.Tensor
    """[T, E]: h"""
    scaled: torch.Tensor
    """[T, E]: h times the weight of the norm."""
    squares: torch.Tensor
    """[S, T] float32: sums of h^2, each over a share of the row."""


def _factor(f: Folded, eps: float) -> torch.Tensor:
    return torch.rsqrt(f.squares.sum(0) / f.hidden.shape[1] + eps)[:, None]


def _most(maps: list[tuple[int, int, bool]]) -> int:
    """Most tokens for which folding pays in a layer of `maps` (outputs, inputs, gated). References never do it."""
    return 0


@op(tol=_TOL, cases=CASES, most=_most)
def fold(hidden_TE: torch.Tensor, weight_E: torch.Tensor) -> Folded:
    """The stream `hidden` before a norm with `weight` (float32)."""
    wide = hidden_TE.float()
    return Folded(hidden_TE, (wide * weight_E).to(hidden_TE.dtype), wide.square().sum(-1)[None])


@op(tol=_TOL, cases=CASES)
def folded_linear(f: Folded, eps: float, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """norm(h) W^T + b: [T, O]."""
    x = (f.scaled.float() * _factor(f, eps)).to(f.hidden.dtype)
    y: torch.Tensor = linear(x, packed, bias_O)
    return y


@op(tol=_TOL, cases=CASES)
def folded_linear_mul(f: Folded, eps: float, packed: object) -> torch.Tensor:
    """silu(gate) * up of norm(h) W^T = [gate | up]: [T, O / 2]."""
    y: torch.Tensor = activate_mul(folded_linear(f, eps, packed), "silu")
    return y


@op(tol=_TOL, cases=CASES)
def linear_fold(x_TI: torch.Tensor, packed: object, hidden_TE: torch.Tensor, weight_E: torch.Tensor) -> Folded:
    """The stream h + x W^T before a norm with `weight` (float32). May overwrite h."""
    y: Folded = fold(hidden_TE + linear(x_TI, packed), weight_E)
    return y
