"""The gated half of a feed-forward part on a GPU: the map to [gate | up] and its activation.

Where Hopper's products for experts beat the library and a pass over its result, they serve with all rows for one
expert; the wide result then never exists. Measured on an H200 (`docs/performance.md`).
"""

import torch

from vllm.ops.fold import linear_mul
from vllm.ops.table import Target
from vllm.ops.triton.activation import activate_mul_triton
from vllm.ops.triton.linear import linear_triton
from vllm.ops.triton.moe_many import hopper_products

_ROWS = ((65, 128, 1),)
"""Least and most rows, and blocks of 128 of them that are at work at one time."""
_LEAST = 1 << 24
"""Smallest weight for them: smaller ones leave processors idle."""


def _when(target: Target) -> bool:
    return target.device == "cuda" and not target.deterministic and target.dtype is not torch.float32


@linear_mul.kernel("triton", when=_when)
def linear_mul_triton(x_TE: torch.Tensor, packed: object) -> torch.Tensor:
    """See the op."""
    assert isinstance(packed, torch.Tensor)
    rows = x_TE.shape[0]
    for least, most, group in _ROWS:
        if least <= rows <= most and packed.numel() >= _LEAST:
            products = hopper_products()
            if products is not None and products.can_dense(x_TE, packed):
                return products.dense(x_TE, packed, True, group)  # type: ignore[no-any-return]
    return activate_mul_triton(linear_triton(x_TE, packed), "silu")
