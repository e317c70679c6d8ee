"""Soft limits on logits. N lines, V vocabulary."""

import torch

from vllm.ops.table import Tol, op

CASES = ((1, 300, 30.0), (7, 1001, 5.0))
"""(N, V, cap)"""


@op(tol=Tol(f32=2e-6), cases=CASES, is_library=True)
def softcap(x_NV: torch.Tensor, cap: float) -> torch.Tensor:
    """cap * tanh(x / cap), float32."""
    return cap * torch.tanh(x_NV / cap)
