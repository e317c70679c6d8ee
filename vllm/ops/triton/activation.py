"""Gated activations on a GPU: one pass over [gate | up]."""

import torch
import triton
import triton.language as tl

from vllm.ops.activation import activate_mul
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.util.arith import cdiv

KINDS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4}
_BLOCK = 1024


@triton.jit
def gated(gate, up, KIND: tl.constexpr):
    """act(gate) * up of float32 values; `KINDS` numbers the activations."""
    if KIND == 0:
        gate = gate / (1.0 + tl.exp(-gate))
    elif KIND == 1:
        gate = 0.5 * gate * (1.0 + tl.math.erf(gate * 0.7071067811865476))
    elif KIND == 2:
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        gate = gate / (1.0 + tl.exp(-2.0 * inner))
    elif KIND == 3:
        gate = tl.maximum(gate, 0.0)
    else:
        gate = tl.maximum(gate, 0.0) * tl.maximum(gate, 0.0)
    return gate * up


@triton.jit
def _activate_mul(x, out, x_stride, I: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr):  # noqa: E741
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    follow()
    gate = tl.load(x + row * x_stride + i, i < I, 0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + I + i, i < I, 0.0).to(tl.float32)
    tl.store(out + row * I + i, gated(gate, up, KIND).to(out.dtype.element_ty), i < I)


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@activate_mul.kernel("triton", when=_on_gpu)
def activate_mul_triton(x_TJ: torch.Tensor, act: str) -> torch.Tensor:
    """See the op."""
    rows, half = x_TJ.shape[0], x_TJ.shape[1] // 2
    out = torch.empty((rows, half), dtype=x_TJ.dtype, device=x_TJ.device)
    grid = (rows, cdiv(half, _BLOCK))
    _activate_mul[grid](x_TJ, out, x_TJ.stride(0), half, KINDS[act], _BLOCK, num_warps=4, **CHAINED)
    return out
