"""Linear maps with e4m3 weights and inputs (W8A8). T tokens, E in, O out.

    linear_fp8          a weight has a scale per row [O]; inputs one per token, or one for all
    linear_fp8_block    a weight has a scale per block of rows and columns [O / rows, E / columns]; inputs one per token
                        and block of columns

The meaning of both: restored inputs times restored weights, added in float32, rounded once to the dtype of the inputs.
Inputs come as they are, or quantized already by the op that made them (`ops.quantize`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vllm.ops.quantize import Intake, Quantized, quantize, restore, scaled_rows
from vllm.ops.table import Tol, op

CASES = ((1, 64, 96), (5, 256, 512), (33, 1024, 768), (256, 512, 1000), (700, 768, 384))
"""(T, E, O)"""
BLOCK_CASES = (
    (1, 256, 384, 128),
    (5, 512, 256, 128),
    (33, 1024, 720, 128),
    (256, 640, 512, 128),
    (7, 80, 48, 16),
    (132, 256, 384, 128),
)
"""(T, E, O, rows and columns of a block)"""


@dataclass(frozen=True, slots=True)
class Fp8Weight:
    """A weight and its scales."""

    data_OE: torch.Tensor
    """[O, E] e4m3"""
    scale: torch.Tensor
    """float32: [O], or one per block"""
    intake: Intake
    block: tuple[int, int] = (0, 0)


def _pack(weight_OE: torch.Tensor, scale_O: torch.Tensor, static: torch.Tensor | None = None) -> Fp8Weight:
    return Fp8Weight(weight_OE, scale_O, Intake(static=static))


def _pack_block(weight_OE: torch.Tensor, scale: torch.Tensor, block: tuple[int, int]) -> Fp8Weight:
    return Fp8Weight(weight_OE, scale, Intake(group=block[1]), block)


def quantize_weight(weight_OE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(e4m3 values, scale per row) of a weight in any floating dtype."""
    return scaled_rows(weight_OE)


def restore_weight(data: torch.Tensor, scale: torch.Tensor, block: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """The float32 numbers [O, E] that a weight stands for; a scale for all of it, per row, or per block."""
    if block == (0, 0):
        return data.float() * (scale.reshape(-1, 1) if scale.numel() > 1 else scale.reshape(()))
    rows = scale.repeat_interleave(block[0], 0)[: data.shape[0]]
    return data.float() * rows.repeat_interleave(block[1], 1)[:, : data.shape[1]]


@op(tol=Tol(f32=1e-4, bf16=1e-2, f16=2e-3), cases=CASES, pack=_pack)
def linear_fp8(x: torch.Tensor | Quantized, packed: Fp8Weight, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b in x's dtype. `packed` is what `pack(weight_OE, scale_O, static)` returned."""
    return _reference(x, packed, bias_O)


@op(tol=Tol(f32=1e-4, bf16=1e-2, f16=2e-3), cases=BLOCK_CASES, pack=_pack_block)
def linear_fp8_block(
    x: torch.Tensor | Quantized, packed: Fp8Weight, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """x W^T + b in x's dtype. `packed` is what `pack(weight_OE, scale, block)` returned."""
    return _reference(x, packed, bias_O)


def _reference(x: torch.Tensor | Quantized, packed: Fp8Weight, bias: torch.Tensor | None) -> torch.Tensor:
    x = quantize(x, packed.intake) if isinstance(x, torch.Tensor) else x
    weight = restore_weight(packed.data_OE, packed.scale, packed.block)
    return F.linear(restore(x), weight, None if bias is None else bias.float()).to(x.dtype)
