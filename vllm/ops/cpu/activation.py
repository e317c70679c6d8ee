"""Activations, alone and times a gate: one pass, float32 inside. T tokens, I inner size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from vllm.ops.activation import activate, activate_mul
from vllm.ops.cpu.jit import SMALL, kernel
from vllm.ops.cpu.linear import NAMES_OF, _here
from vllm.ops.cpu.mathlib import activation
from vllm.ops.cpu.values import W

_CHUNK = 1024


@kernel("x:T* out:T* rows inner")
def _activate(k, x, out, rows, inner, T, act, gated):
    """out = act(x), or act(gate) * up with rows [gate | up]; work is cut into pieces of a row."""
    pieces = (inner + _CHUNK - 1) // _CHUNK
    for item in k.share(rows * pieces):
        row, first = item // pieces, item % pieces * _CHUNK
        source = x + row * inner * (2 if gated else 1)
        for i in k.range(first, k.minimum(first + _CHUNK, inner), W):
            inside = k.minimum(inner - i, k.const(W))
            y = activation(k, act, (source + i).load_part(W, inside))
            if gated:
                y = y * (source + inner + i).load_part(W, inside)
            (out + row * inner + i).store_part(y, inside)


def _run(x: torch.Tensor, act: str, gated: bool) -> torch.Tensor:
    inner = x.shape[-1] // (2 if gated else 1)
    out = torch.empty((*x.shape[:-1], inner), dtype=x.dtype)
    _function(x.dtype, act, gated, x.numel() <= SMALL)(x.data_ptr(), out.data_ptr(), x.numel() // x.shape[-1], inner)
    return out


@functools.cache
def _function(dtype: torch.dtype, act: str, gated: bool, alone: bool) -> Callable[..., None]:
    return _activate.get(alone, T=NAMES_OF[dtype], act=act, gated=gated)


@activate.kernel("jit", when=_here)
def activate_jit(x_TI: torch.Tensor, act: str) -> torch.Tensor:
    """As the reference."""
    return _run(x_TI.contiguous(), act, False)


@activate_mul.kernel("jit", when=_here)
def activate_mul_jit(x_TJ: torch.Tensor, act: str) -> torch.Tensor:
    """As the reference."""
    return _run(x_TJ.contiguous(), act, True)
