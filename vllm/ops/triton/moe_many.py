"""Experts for many tokens on a GPU: Hopper's products, or the library's, whose rows are copied into sorted order.

Called by: moe; linear_mul, which gives all rows to one expert.
"""

import functools
from types import ModuleType

import torch
import triton
import triton.language as tl

from vllm.ops.moe import Apart
from vllm.ops.triton.activation import activate_mul_triton
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.chip import for_hopper
from vllm.ops.triton.moe_sort import Sorted, sort
from vllm.util.arith import cdiv, next_power_of_2
from vllm.util.log import get_logger

log = get_logger(__name__)

_FETCHED = 8192
"""From so many tokens on up reads their rows through the order: fewer were not timed."""


@triton.jit
def _spread(x, place, out, x_stride, E: tl.constexpr, A: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of tokens in sorted order: each is read once and written for each of its experts."""
    token = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    follow()
    row = tl.load(x + token * x_stride + e, e < E, 0.0)
    for a in tl.static_range(A):
        tl.store(out + tl.load(place + token * A + a).to(tl.int64) * E + e, row, e < E)


def hopper_products() -> ModuleType | None:
    """The products for Hopper's warpgroups, where they can be had."""
    return for_hopper("moe_hopper", "experts run on the library's products, which are slower")


@functools.cache
def _fetches(device: str) -> bool:
    """Whether these products can read rows in the order of tokens."""
    hopper = hopper_products()
    assert hopper is not None
    try:
        hopper.try_fetching(device)
    except Exception as error:  # why: as above; a copy of the rows serves
        log.warning("rows of experts are copied into order, which is slower: %s", error)
        return False
    return True


def spread_rows(x: torch.Tensor, s: Sorted, top_k: int) -> torch.Tensor:
    """The rows of all pairs in sorted order."""
    tokens, width = x.shape
    rows = torch.empty((tokens * top_k, width), dtype=x.dtype, device=x.device)
    block = min(2048, next_power_of_2(width))
    grid = (tokens, cdiv(width, block))
    _spread[grid](x, s.place, rows, x.stride(0), width, top_k, block, num_warps=4, **CHAINED)
    return rows


def by_hopper(
    x: torch.Tensor,
    weights: torch.Tensor,
    chosen: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    s: Sorted | None = None,
) -> Apart:
    """up reads rows through their order and makes silu(gate) * up in one pass. `s`: they are sorted already."""
    hopper = hopper_products()
    assert hopper is not None
    s = s or sort(chosen, up.shape[0], hopper.ROWS)
    if len(x) >= _FETCHED and _fetches(x.device.type):
        h = hopper.product(x.contiguous(), up, s, True, chosen.shape[1])
    else:
        h = hopper.product(spread_rows(x, s, chosen.shape[1]), up, s, True)
    return Apart(hopper.product(h, down, s, False), weights, s.place)


def by_library(
    x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor, up: torch.Tensor, down: torch.Tensor, act: str
) -> Apart:
    """The same with torch's grouped product, of rows copied into sorted order."""
    s = sort(chosen, up.shape[0], 128)
    rows = spread_rows(x, s, chosen.shape[1])
    h = activate_mul_triton(torch._grouped_mm(rows, up.transpose(1, 2), offs=s.ends), act)
    return Apart(torch._grouped_mm(h, down.transpose(1, 2), offs=s.ends), weights, s.place)
