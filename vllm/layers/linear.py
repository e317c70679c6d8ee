"""Linear maps and their sharding. A column map holds rows of W (its outputs are a share); a row map holds columns
(its inputs are a share, its outputs are summed over tp, the bias is added once, after the sum).

Knows nothing of what the outputs mean. Called by: attention, mlp, embedding.
"""

import torch

from vllm.layers.context import Context


class Linear:
    """x W^T + b on this rank's share; no communication. `exact` maps are never quantized."""

    __slots__ = ("_bias", "_packed", "_run")

    def __init__(self, c: Context, weight: torch.Tensor, bias: torch.Tensor | None = None, exact: bool = False) -> None:
        kernel = c.ops.chosen["linear" if exact else c.linear]
        self._run = kernel.run
        self._packed = kernel.helpers["pack"](weight)
        self._bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(x, self._packed, self._bias)


class RowLinear:
    """x W^T summed over tp, then + b."""

    __slots__ = ("_axis", "_bias", "_map")

    def __init__(self, c: Context, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._axis = c.mesh.tp
        alone = self._axis.size == 1
        self._map = Linear(c, weight, bias if alone else None)
        self._bias = None if alone else bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = self._axis.all_reduce(self._map(x))
        return y if self._bias is None else y + self._bias


def column(c: Context, name: str) -> Linear:
    """The column map whose tensors are `name`.weight and perhaps `name`.bias."""
    return Linear(c, c.take(f"{name}.weight"), c.take_if(f"{name}.bias"))


def row(c: Context, name: str) -> RowLinear:
    """The row map whose tensors are `name`.weight and perhaps `name`.bias."""
    return RowLinear(c, c.take(f"{name}.weight"), c.take_if(f"{name}.bias"))
