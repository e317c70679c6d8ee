"""e4m3 tokens as kernels of few rows hand them on: a scale for each group of columns, scales of a group side by side.

The copy engine reads a group's scales as a row, so rows are as long as the power of two that holds the tokens.
Called by: linear, linear_hopper_e4m3, decode.
"""

import torch

from vllm.ops.quantize import FP8, Quantized
from vllm.util.arith import next_power_of_2

GROUP = 128
"""Columns that share a scale, where no tile or head says otherwise."""


def height_of(rows: int) -> int:
    """Tokens of a tile: it holds all."""
    return max(8, next_power_of_2(rows))


def empty_small(rows: int, width: int, group: int, dtype: torch.dtype, device: torch.device) -> Quantized:
    """Memory for such tokens."""
    assert width % group == 0, f"groups of {group} do not fill {width} columns"
    scale = torch.empty((width // group, height_of(rows)), dtype=torch.float32, device=device)
    return Quantized(torch.empty((rows, width), dtype=FP8, device=device), scale.t()[:rows], dtype)


def group_of(x: Quantized) -> int:
    """Columns that share a scale."""
    return x.values.shape[1] // x.scale.shape[1]


def in_columns(x: Quantized) -> Quantized:
    """The same with its scales where these kernels look for them."""
    if x.scale.stride() == (1, height_of(x.shape[0])):
        return x
    made = empty_small(*x.shape, group_of(x), x.dtype, x.values.device)
    made.scale.copy_(x.scale)
    return Quantized(x.values, made.scale, x.dtype)
