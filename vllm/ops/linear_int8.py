"""Linear maps with int8 weights and activations (W8A8, dynamic). T tokens, E in, O out.

A weight row has one scale (its largest magnitude / 127), so has a token; products are summed as integers, exactly, and
scaled once at the end. So a token's result does not depend on the other tokens of the step, whatever kernel runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vllm.ops.table import Tol, op

CASES = ((1, 64, 96), (5, 256, 512), (33, 1024, 768), (256, 512, 1000))
"""(T, E, O)"""
_MIN_CUDA_ROWS = 32


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A quantized weight as it is without a kernel's own packing."""

    data_OE: torch.Tensor
    """[O, E] int8"""
    scale_O: torch.Tensor
    """[O] float32"""


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 values, float32 scale per row) of [N, E]: halves round to even, a row of zeros gets scale 0."""
    x = x.float()
    most = x.abs().amax(-1)
    back = torch.where(most > 0, 127.0 / most, 0.0)
    return torch.round(x * back[:, None]).to(torch.int8), most / 127.0


def _pack(weight_OE: torch.Tensor) -> object:
    return Int8Weight(*quantize_rows(weight_OE))


@op(tol=Tol(f32=2e-3, bf16=1e-2, f16=4e-3), cases=CASES, pack=_pack)
def linear_int8(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b with both sides quantized, in x's dtype. `packed` is what `pack(weight_OE)` returned."""
    assert isinstance(packed, Int8Weight)
    x, scale_T = quantize_rows(x_TE)
    tokens = x.shape[0]
    if x.is_cuda and tokens < _MIN_CUDA_ROWS:  # why: the CUDA operator wants more rows
        x = torch.nn.functional.pad(x, (0, 0, 0, _MIN_CUDA_ROWS - tokens))
    y = torch._int_mm(x, packed.data_OE.t())[:tokens].float() * scale_T[:, None] * packed.scale_O
    return (y if bias_O is None else y + bias_O.float()).to(x_TE.dtype)
