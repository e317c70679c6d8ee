"""Inputs of fp8 linear maps: values in e4m3 and the scales they are multiplied with, alone and behind what makes them.

    token    one scale per token: its largest magnitude / 448
    static   one scale for all, from the checkpoint
    group    one scale per token and `group` columns

A value is x / scale (by way of 1 / largest), rounded to the nearest e4m3 (halves to even) and held within +-448; a row
of zeros has scale 0.
The fused ops mean exactly: the plain op in x's dtype, then `quantize`. T tokens, E hidden, I inner size, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm.ops.activation import activate_mul
from vllm.ops.norm import add_rms_norm, rms_norm
from vllm.ops.table import Tol, op

FP8 = torch.float8_e4m3fn
MOST = 448.0
"""The largest e4m3 value."""
CASES = ((1, 64, 0), (7, 1024, 0), (33, 4096, 0), (5, 384, 128), (256, 896, 128), (3, 80, 16))
"""(T, E, group); 0: a scale per token, and a static one."""


@dataclass(frozen=True, slots=True)
class Intake:
    """How a linear map wants its inputs."""

    group: int = 0
    """Columns that share a scale; 0: all of them."""
    static: torch.Tensor | None = None
    """The scale of all inputs, [] float32, where the checkpoint has one."""

    def like(self, other: Intake | None) -> bool:
        """The same values serve both."""
        return other is not None and self.group == other.group and self.static is None and other.static is None


@dataclass(slots=True)
class Quantized:
    """Tokens in e4m3."""

    values: torch.Tensor
    """[T, E] e4m3"""
    scale: torch.Tensor
    """float32: [T], [] or [T, G]"""
    dtype: torch.dtype
    """What the tokens were, and what a linear map gives."""

    @property
    def shape(self) -> torch.Size:
        """That of the values."""
        return self.values.shape


def to_fp8(x: torch.Tensor) -> torch.Tensor:
    """float32 to e4m3, too large values to the largest."""
    return x.clamp(-MOST, MOST).to(FP8)


def scaled_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(e4m3 values, float32 scales) of [.., E], a scale per row."""
    x = x.float()
    most = x.abs().amax(-1)
    # why: torch divides by numbers in other ways on other devices; these two are the same everywhere
    back = torch.where(most > 0, most.reciprocal() * MOST, 0.0)
    return to_fp8(x * back[..., None]), most * (1.0 / MOST)


@op(tol=Tol(f32=0.0, bf16=0.0, f16=0.0), cases=CASES)
def quantize(x_TE: torch.Tensor, intake: Intake) -> Quantized:
    """See the module."""
    if intake.static is not None:
        return Quantized(to_fp8(x_TE.float() / intake.static), intake.static, x_TE.dtype)
    if not intake.group:
        return Quantized(*scaled_rows(x_TE), x_TE.dtype)
    tokens, width = x_TE.shape
    rest = -width % intake.group
    x = torch.nn.functional.pad(x_TE.float(), (0, rest)) if rest else x_TE
    values, scale = scaled_rows(x.view(tokens, -1, intake.group))
    return Quantized(values.view(tokens, -1)[:, :width].contiguous(), scale, x_TE.dtype)


@op(tol=Tol(f32=7e-2, bf16=7e-2, f16=7e-2), cases=CASES)
def rms_norm_quantize(x_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float, intake: Intake) -> Quantized:
    """quantize(rms_norm(x)). The tolerance is one step of e4m3: sums may move a value past the middle of two."""
    return quantize(rms_norm(x_TE, weight_E, eps), intake)


@op(tol=Tol(f32=7e-2, bf16=7e-2, f16=7e-2), cases=CASES)
def add_rms_norm_quantize(
    x_TE: torch.Tensor, residual_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float, intake: Intake
) -> tuple[torch.Tensor, Quantized]:
    """(s, quantize(norm of s)) with s = residual + x. May overwrite its inputs."""
    s, y = add_rms_norm(x_TE, residual_TE, weight_E, eps)
    return s, quantize(y, intake)


@op(tol=Tol(f32=7e-2, bf16=7e-2, f16=7e-2), cases=CASES)
def activate_mul_quantize(x_TJ: torch.Tensor, act: str, intake: Intake) -> Quantized:
    """quantize(act(gate) * up) with x = [gate | up]."""
    return quantize(activate_mul(x_TJ, act), intake)


def restore(x: Quantized) -> torch.Tensor:
    """The float32 numbers that the values stand for: [T, E]."""
    values = x.values.float()
    if x.scale.dim() < 2:
        return values * x.scale[..., None] if x.scale.dim() else values * x.scale
    group = -(-values.shape[1] // x.scale.shape[1])
    return values * x.scale.repeat_interleave(group, 1)[:, : values.shape[1]]
