"""Norms as modules, each alone (`norm(x)`) and after the addition of what a layer produced (`norm.add(x, delta)`).

Weights are kept in float32, with Gemma's one already added, so that kernels have one case. Called by: block, attention.
"""

import torch

from vllm.layers.context import Context
from vllm.ops.moe import Apart
from vllm.ops.quantize import Intake
from vllm.parallel.mesh import Axis
from vllm.parts.basic import Norm


class NormLayer:
    """One norm. `part` None is the identity; `wide` rows are cut over tp, so their mean is summed over the axis."""

    __slots__ = ("_add", "_axis", "_bias", "_intake", "_layer", "_ops", "_part", "_rms", "_weight")

    def __init__(self, c: Context, part: Norm | None, name: str, axis: Axis | None = None) -> None:
        weight = c.take(f"{name}.weight").float() if part and part.affine else None
        self._part = part
        self._weight = weight + 1.0 if weight is not None and part and part.plus_one else weight
        bias = c.take(f"{name}.bias") if part and part.affine and part.bias else None
        self._bias = None if bias is None else bias.float()
        self._axis = axis if axis and axis.size > 1 else None
        self._rms, self._layer, self._add = c.ops.rms_norm, c.ops.layer_norm, c.ops.add_rms_norm
        self._ops = c.ops
        self._intake: Intake | None = None

    @property
    def weight(self) -> torch.Tensor | None:
        """float32 weight (with the one added), for ops that fuse this norm."""
        return self._weight

    def feed(self, intake: Intake | None) -> None:
        """From now on give only what linear maps with this intake read: the norm's values, quantized."""
        if self._part is not None and self._part.kind == "rms" and self._axis is None:
            self._intake = intake

    @property
    def folds(self) -> bool:
        """An RMS norm with a weight, whose row factor may be applied behind a product."""
        return self._part is not None and self._part.kind == "rms" and self._weight is not None and self._axis is None

    @property
    def is_identity(self) -> bool:
        """It does nothing."""
        return self._part is None

    @property
    def joins(self) -> bool:
        """`add` takes results of experts that are apart."""
        return self._part is not None and self._part.kind == "rms" and self._axis is None and self._intake is None

    @property
    def eps(self) -> float:
        """What is added to the mean, for ops that fuse this norm."""
        assert self._part is not None
        return self._part.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The norm of x; `Quantized` where the layer was told to feed an intake."""
        part = self._part
        if part is None:
            return x
        if self._axis is not None:
            return self._sharded(x, part)
        if self._intake is not None:
            return self._ops.rms_norm_quantize(x, self._weight, part.eps, self._intake)
        if part.kind == "rms":
            return self._rms(x, self._weight, part.eps)
        return self._layer(x, self._weight, self._bias, part.eps)

    def add(self, x: torch.Tensor, delta: torch.Tensor | Apart | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(s, norm(s)) with s = x + delta; delta None is zero. May overwrite delta."""
        if delta is None:
            return x, self(x)
        if isinstance(delta, Apart):
            return self._ops.add_apart_rms_norm(delta, x, self._weight, self.eps)  # type: ignore[no-any-return]
        if self._part is not None and self._intake is not None:
            return self._ops.add_rms_norm_quantize(delta, x, self._weight, self._part.eps, self._intake)
        if self._part is not None and self._part.kind == "rms":
            return self._add(delta, x, self._weight, self._part.eps)
        x = x + delta
        return x, self(x)

    def _sharded(self, x: torch.Tensor, part: Norm) -> torch.Tensor:
        """A norm over a row of which this rank holds an equal share."""
        assert self._axis is not None
        wide = x.float()
        # why: with one number per row to exchange, mean and variance go in one message
        sums = self._axis.all_reduce(torch.stack((wide.sum(-1), wide.square().sum(-1))))
        mean, square = (sums / (x.shape[-1] * self._axis.size)).unsqueeze(-1).unbind(0)
        if part.kind == "rms":
            y = wide * torch.rsqrt(square + part.eps)
        else:
            y = (wide - mean) * torch.rsqrt(square - mean * mean + part.eps)
        y = y if self._weight is None else y * self._weight
        return (y if self._bias is None else y + self._bias).to(x.dtype)
