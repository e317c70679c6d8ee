"""RMS norm on a GPU, alone and after adding the residual: one program per row, one pass over memory."""

import torch
import triton
import triton.language as tl

from vllm.ops.norm import add_rms_norm, rms_norm
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.util.arith import next_power_of_2


@triton.jit
def _norm(x, residual, weight, out, x_stride, r_stride, eps, E: tl.constexpr, EP: tl.constexpr, WEIGHT: tl.constexpr,
          ADD: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EP)
    follow()
    value = tl.load(x + row * x_stride + e, e < E, 0.0)
    if ADD:
        value = value + tl.load(residual + row * r_stride + e, e < E, 0.0)
        tl.store(residual + row * r_stride + e, value, e < E)
    wide = value.to(tl.float32)
    y = wide * tl.rsqrt(tl.sum(wide * wide, 0) / E + eps)
    if WEIGHT:
        y = y * tl.load(weight + e, e < E, 0.0)
    tl.store(out + row * E + e, y.to(out.dtype.element_ty), e < E)


def warps_of(dim: int) -> int:
    """Warps of a program for a row: they say in which order it is summed."""
    return 1 if dim <= 512 else 4 if dim <= 2048 else 8


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@rms_norm.kernel("triton", when=_on_gpu)
def rms_norm_triton(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """See the op; any leading dimensions, each row contiguous."""
    dim = x.shape[-1]
    rows = x.reshape(-1, dim)
    out = torch.empty(rows.shape, dtype=x.dtype, device=x.device)
    _norm[(rows.shape[0],)](
        rows, rows, rows if weight is None else weight, out, rows.stride(0), 0, eps, dim, next_power_of_2(dim),
        weight is not None, False, num_warps=warps_of(dim), **CHAINED,
    )  # fmt: skip
    return out.view(x.shape)


@add_rms_norm.kernel("triton", when=_on_gpu)
def add_rms_norm_triton(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the op; the sum takes the residual's place."""
    rows, dim = x.shape
    out = torch.empty((rows, dim), dtype=x.dtype, device=x.device)
    _norm[(rows,)](
        x, residual, x if weight is None else weight, out, x.stride(0), residual.stride(0), eps, dim,
        next_power_of_2(dim), weight is not None, True, num_warps=warps_of(dim), **CHAINED,
    )  # fmt: skip
    return residual, out
