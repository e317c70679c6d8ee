"""Activations of feed-forward layers, alone and multiplied with a gate. T tokens, I inner size."""

import torch
import torch.nn.functional as F

from vllm.ops.table import Tol, op

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2")
CASES = tuple((t, i, a) for t, i in ((1, 128), (5, 3072), (256, 512)) for a in ACTIVATIONS)
"""(T, I, act)"""


def _apply(name: str, x: torch.Tensor) -> torch.Tensor:
    if name == "silu":
        return F.silu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "relu":
        return F.relu(x)
    assert name == "relu2", name
    return F.relu(x).square()


@op(tol=Tol(f32=2e-6, bf16=2e-2, f16=2e-3), cases=CASES)
def activate(x_TI: torch.Tensor, act: str) -> torch.Tensor:
    """act(x), computed in float32."""
    return _apply(act, x_TI.float()).to(x_TI.dtype)


@op(tol=Tol(f32=2e-6, bf16=2e-2, f16=2e-3), cases=CASES)
def activate_mul(x_TJ: torch.Tensor, act: str) -> torch.Tensor:
    """act(gate) * up with x = [gate | up], J = 2I; computed in float32."""
    gate, up = x_TJ.float().chunk(2, dim=-1)
    return (_apply(act, gate) * up).to(x_TJ.dtype)
