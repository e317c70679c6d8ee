"""Linear maps and their sharding. A column map holds rows of W (its outputs are a share); a row map holds columns
(its inputs are a share, its outputs are summed over tp, the bias is added once, after the sum).

Knows nothing of what the outputs mean. Called by: attention, mlp, embedding.
"""

from __future__ import annotations

import torch

from vllm.layers.context import Context
from vllm.ops.fold import Map
from vllm.ops.linear_fp8 import Fp8Weight
from vllm.ops.quantize import Intake, Quantized


class Linear:
    """x W^T on this rank's share, + b; no communication. `exact` maps are never quantized."""

    __slots__ = ("_bias", "_packed", "_run", "intake", "shape")

    def __init__(self, c: Context, weight: torch.Tensor, bias: torch.Tensor | None = None, exact: bool = False) -> None:
        kernel = c.ops.chosen["linear" if exact or c.comes_packed else c.linear]
        self._run = kernel.run
        self.shape = int(weight.shape[0]), int(weight.shape[1])
        """(outputs, inputs)"""
        self._packed = kernel.helpers["pack"](weight)
        self._bias = bias
        self.intake: Intake | None = None
        """How its inputs may come quantized already; None: as they are."""

    @classmethod
    def named(cls, c: Context, name: str, bias: torch.Tensor | None) -> Linear:
        """The map whose tensors are `name`.weight and, in a form with scales, `name`.weight_scale and .input_scale."""
        weight, scale = c.take(f"{name}.weight"), c.take_if(f"{name}.weight_scale")
        if scale is None:
            return cls(c, weight, bias)
        made = object.__new__(cls)
        kernel, static = c.ops.chosen[c.linear], c.take_if(f"{name}.input_scale")
        made._run, made._bias, made.shape = kernel.run, bias, (int(weight.shape[0]), int(weight.shape[1]))
        made._packed = kernel.helpers["pack"](weight, scale, static if c.weight_block == (0, 0) else c.weight_block)
        made.intake = made._packed.intake
        return made

    @property
    def packed(self) -> object:
        """The weight as the op reads it, for ops that fuse this map."""
        return self._packed

    def as_map(self, gated: bool = False) -> Map:
        """What ops that fuse this map ask about it."""
        return *self.shape, gated, isinstance(self._packed, Fp8Weight)

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias, for ops that fuse this map."""
        return self._bias

    def __call__(self, x: torch.Tensor | Quantized) -> torch.Tensor:
        return self._run(x, self._packed, self._bias)


class RowLinear:
    """x W^T summed over tp, then + b."""

    __slots__ = ("_axis", "_bias", "_map", "intake")

    def __init__(self, c: Context, name: str, bias: torch.Tensor | None) -> None:
        self._axis = c.mesh.tp
        alone = self._axis.size == 1
        self._map = Linear.named(c, name, bias if alone else None)
        self._bias = None if alone else bias
        self.intake = self._map.intake

    @property
    def alone(self) -> Linear:
        """The map, on an axis of one rank."""
        assert self._axis.size == 1, "a sum over ranks comes behind this map"
        return self._map

    def __call__(self, x: torch.Tensor | Quantized) -> torch.Tensor:
        y = self._axis.all_reduce(self._map(x))
        return y if self._bias is None else y + self._bias


def column(c: Context, name: str) -> Linear:
    """The column map whose tensors are `name`.weight and perhaps `name`.bias."""
    return Linear.named(c, name, c.take_if(f"{name}.bias"))


def row(c: Context, name: str) -> RowLinear:
    """The row map whose tensors are `name`.weight and perhaps `name`.bias."""
    return RowLinear(c, name, c.take_if(f"{name}.bias"))
