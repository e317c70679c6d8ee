"""Cosines and sines of a step's positions on a GPU, both in one pass."""

import torch
import triton
import triton.language as tl

from vllm.ops.rope import turns
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.util.arith import next_power_of_2


@triton.jit
def _turns(positions, cos, sin, cos_out, sin_out, R: tl.constexpr, RP: tl.constexpr):
    token, r = tl.program_id(0).to(tl.int64), tl.arange(0, RP)
    follow()
    at = tl.load(positions + token) * R + r
    c, s = tl.load(cos + at, r < R, 0.0), tl.load(sin + at, r < R, 0.0)
    tl.store(cos_out + token * R + r, c, r < R)
    tl.store(sin_out + token * R + r, s, r < R)


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@turns.kernel("triton", when=_on_gpu)
def turns_triton(
    positions_T: torch.Tensor, cos_PR: torch.Tensor, sin_PR: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the op."""
    tokens, half = positions_T.shape[0], cos_PR.shape[1]
    cos, sin = cos_PR.new_empty((2, tokens, half))
    _turns[(tokens,)](positions_T, cos_PR, sin_PR, cos, sin, half, next_power_of_2(half), num_warps=1, **CHAINED)
    return cos, sin
