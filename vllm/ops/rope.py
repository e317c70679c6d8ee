"""Rotary position embedding: tables of cosines and sines, and their use on heads.

T tokens, H heads, D head size, R = rotated dimensions / 2. Tables are float32, one row per position, so a step looks
its rows up once and all layers share them.
"""

import torch

from vllm.ops.table import Tol, op

CASES = (
    (1, 4, 64, 64, False),
    (9, 8, 128, 128, False),
    (9, 8, 96, 48, False),
    (17, 2, 64, 64, True),
    (5, 2, 64, 32, True),
)
"""(T, H, D, rotated dimensions, interleaved)"""


@op(tol=Tol(f32=0.0), is_library=True)
def turns(positions_T: torch.Tensor, cos_PR: torch.Tensor, sin_PR: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [T, R] of positions (int64)."""
    return cos_PR[positions_T], sin_PR[positions_T]


@op(tol=Tol(f32=2e-6, bf16=1e-2, f16=2e-3), cases=CASES)
def rope(x_THD: torch.Tensor, cos_TR: torch.Tensor, sin_TR: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """Rotate the first 2R dimensions of each head by its position's angles, in float32; the rest passes through.

    Pairs are (i, i + R), or (2i, 2i + 1) when `interleaved`.
    """
    half = cos_TR.shape[-1]
    cos, sin = cos_TR[:, None, :], sin_TR[:, None, :]
    x = x_THD[..., : 2 * half].float()
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    left, right = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack((left, right), -1).flatten(-2) if interleaved else torch.cat((left, right), -1)
    if 2 * half == x_THD.shape[-1]:
        return turned.to(x_THD.dtype)
    return torch.cat((turned.to(x_THD.dtype), x_THD[..., 2 * half :]), -1)
