"""Normalisation over the last dimension, alone and fused with the addition of a residual.

T tokens, E hidden. Weights are float32 (the builder adds Gemma's one to them and casts); the result has x's dtype and
is rounded once, from float32.
"""

import torch

from vllm.ops.table import Tol, op

CASES = ((1, 64), (7, 1024), (33, 4096), (256, 896))
"""(T, E)"""


@op(tol=Tol(f32=2e-6, bf16=1e-2, f16=2e-3), cases=CASES)
def rms_norm(x_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight."""
    x = x_TE.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return (x if weight_E is None else x * weight_E).to(x_TE.dtype)


@op(tol=Tol(f32=2e-6, bf16=1e-2, f16=2e-3), cases=CASES, is_library=True)
def layer_norm(
    x_TE: torch.Tensor, weight_E: torch.Tensor | None, bias_E: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias."""
    return torch.nn.functional.layer_norm(x_TE.float(), x_TE.shape[-1:], weight_E, bias_E, eps).to(x_TE.dtype)


@op(tol=Tol(f32=2e-6, bf16=1e-2, f16=2e-3), cases=CASES)
def add_rms_norm(
    x_TE: torch.Tensor, residual_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(s, rms_norm(s)) with s = residual + x, rounded to the dtype first. May overwrite its inputs."""
    s = residual_TE + x_TE
    return s, rms_norm(s, weight_E, eps)
