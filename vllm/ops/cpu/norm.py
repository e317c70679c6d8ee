"""RMS normalisation, alone and with the addition of a residual. T rows, E columns; float32 inside, rounded once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from vllm.ops.cpu.jit import SMALL, kernel
from vllm.ops.cpu.linear import NAMES_OF, _here
from vllm.ops.cpu.values import W
from vllm.ops.norm import add_rms_norm, rms_norm


@kernel("x:T* residual:T* weight:f32* out:T* rows dim eps:f32")
def _rms_norm(k, x, residual, weight, out, rows, dim, eps, T, add, scaled):
    """out = norm(x + residual) * weight; the sum is left in `residual`."""
    for t in k.share(rows):
        line, kept, to = x + t * dim, residual + t * dim, out + t * dim
        acc = k.var(k.f32(0.0, W))
        whole = dim - dim % W
        for i in k.range(0, dim, W):
            inside = k.minimum(dim - i, k.const(W))
            v = (line + i).load_part(W, inside)
            if add:
                (kept + i).store_part(v + (kept + i).load_part(W, inside), inside)
                v = (kept + i).load_part(W, inside)
            acc.v = k.fma(v, v, acc.v)
        scale = 1.0 / k.sqrt(acc.v.sum() / dim.to("f32") + eps)
        source = kept if add else line
        for i in k.range(0, whole, W):
            v = (source + i).load(W) * scale
            (to + i).store(v * (weight + i).load(W) if scaled else v)
        with k.when(whole < dim):
            inside = dim - whole
            v = (source + whole).load_part(W, inside) * scale
            (to + whole).store_part(v * (weight + whole).load_part(W, inside) if scaled else v, inside)


def _run(x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    dim = x.shape[-1]
    out = torch.empty_like(x)
    _function(x.dtype, residual is not None, weight is not None, x.numel() <= SMALL)(
        x.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        out.data_ptr(),
        x.numel() // dim,
        dim,
        eps,
    )
    return out


@functools.cache
def _function(dtype: torch.dtype, add: bool, scaled: bool, alone: bool) -> Callable[..., None]:
    return _rms_norm.get(alone, T=NAMES_OF[dtype], add=add, scaled=scaled)


@rms_norm.kernel("jit", when=_here)
def rms_norm_jit(x_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float) -> torch.Tensor:
    """As the reference."""
    return _run(x_TE.contiguous(), None, weight_E, eps)


@add_rms_norm.kernel("jit", when=_here)
def add_rms_norm_jit(
    x_TE: torch.Tensor, residual_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference; the sum takes the residual's memory."""
    residual = residual_TE.contiguous()
    return residual, _run(x_TE.contiguous(), residual, weight_E, eps)
