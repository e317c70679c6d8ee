"""The gated half of a feed-forward part on a GPU: the map to [gate | up] and its activation.

Where one of Hopper's own kernels beats the library and a pass over its result, it serves; the wide result then never
exists. For prompts that is the one of experts, with all rows for one. Measured on an H200 (`docs/performance.md`).
"""

from types import ModuleType

import torch

from vllm.ops.fold import linear_mul
from vllm.ops.table import Target
from vllm.ops.triton.activation import activate_mul_triton
from vllm.ops.triton.chip import for_hopper
from vllm.ops.triton.linear import linear_triton
from vllm.ops.triton.moe_many import hopper_products

_ROWS = frozenset((*range(73, 129), *range(249, 257)))
"""Its tiles have 128 rows, whose last must be nearly full: at 160 rows it loses 31 us a layer of 8B, at 192 15."""
_MANY = 2048
"""From as many rows on the products of experts are 8 to 13 % faster; between, the library and they are even."""
_LEAST = 1 << 24
"""Smallest weight for it: smaller ones leave processors idle."""


def hopper_gated() -> ModuleType | None:
    """The kernel for Hopper's warpgroups, where it can be had."""
    return for_hopper("linear_wide", "gated maps run on the library's product, which is slower")


def _when(target: Target) -> bool:
    return target.device == "cuda" and not target.deterministic and target.dtype is not torch.float32


@linear_mul.kernel("triton", when=_when)
def linear_mul_triton(x_TE: torch.Tensor, packed: object) -> torch.Tensor:
    """See the op."""
    assert isinstance(packed, torch.Tensor)
    if x_TE.shape[0] in _ROWS and packed.numel() >= _LEAST:
        hopper = hopper_gated()
        if hopper is not None and hopper.can(x_TE, packed):
            return hopper.gated(x_TE, packed)  # type: ignore[no-any-return]
    if x_TE.shape[0] >= _MANY and packed.numel() >= _LEAST:
        products = hopper_products()
        if products is not None and products.can_dense(x_TE, packed):
            group = 8 if x_TE.shape[0] < 2 * _MANY else 16
            return products.dense(x_TE, packed, True, group)  # type: ignore[no-any-return]
    return activate_mul_triton(linear_triton(x_TE, packed), "silu")
