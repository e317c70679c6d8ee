"""Router, choice and experts of few tokens on a GPU.

    logits ─▶ pick: choice and sort, a program an expert ─▶ up ─▶ down ─▶ join
    up to 4 tokens: every pair by itself, and down of a token's experts is one product
Kernels: `moe_choose.py`, `moe.py`, `moe_join.py`. Called by: layers.
"""

import torch

from vllm.ops.fold import Folded, folded_moe
from vllm.ops.moe import Apart, moe, moe_apart
from vllm.ops.triton.moe import down_alone, down_product, in_order, takes_many, unjoined, up_product
from vllm.ops.triton.moe_choose import Picked, can, can_pick, choose_many, choose_triton, chosen, may_fold, pick
from vllm.ops.triton.moe_join import Ends, Onto, joined
from vllm.ops.triton.moe_sort import sort_counted
from vllm.ops.triton.moe_tiles import Tiles, tiles

_COUNTED = 8192
"""From so many tokens on choice counts the pairs of experts for the sort: fewer leave processors idle."""


@moe.kernel("triton", when=lambda target: can(target) and not target.deterministic)
def moe_triton(
    x_TE: torch.Tensor,
    packed: object,
    top_k: int,
    renormalize: bool,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> torch.Tensor:
    """See the op."""
    a = moe_apart_triton(x_TE, packed, top_k, renormalize, up_XJE, down_XEI, act)
    is_sum = a.place_P is None and a.weights_TA.shape[1] == 1 and a.results_PE.dtype == x_TE.dtype
    return a.results_PE if is_sum else joined(a, x_TE.dtype, None)[0]


@moe_apart.kernel("triton", when=lambda target: can(target) and not target.deterministic)
def moe_apart_triton(
    x_TE: torch.Tensor,
    packed: object,
    top_k: int,
    renormalize: bool,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> Apart:
    """See the op."""
    assert isinstance(packed, torch.Tensor)
    (tokens, _), num, maps = x_TE.shape, packed.shape[0], (up_XJE, down_XEI, act)
    if can_pick(tokens, num):
        z = tiles(tokens * top_k, num, x_TE.dtype, alone=True)
        if z.rows_alone < tokens * top_k:
            return few_apart(x_TE, pick(x_TE, packed, top_k, renormalize, False), *maps, z)
        y = few_tokens(x_TE, packed, top_k, renormalize, *maps, z=z)[0]
        return Apart(y, y.new_empty((tokens, 1), dtype=torch.float32), None)
    hopper = takes_many(x_TE, tokens * top_k, *maps) if tokens >= _COUNTED and num <= 128 else None
    if hopper is not None:
        weights, ids, counts = choose_many(x_TE, packed, top_k, renormalize)
        return unjoined(x_TE, weights, ids, *maps, sort_counted(ids, counts, num, hopper.ROWS))
    return unjoined(x_TE, *choose_triton(x_TE, packed, top_k, renormalize), *maps)


@folded_moe.kernel("triton", when=may_fold)
def folded_moe_triton(
    f: Folded,
    eps: float,
    packed: object,
    top_k: int,
    renormalize: bool,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
    weight_E: torch.Tensor,
) -> Folded:
    """See the op, for at most 128 tokens; the sum takes the place of h."""
    assert isinstance(packed, torch.Tensor)
    tokens, onto = f.hidden.shape[0], (f.hidden, weight_E)
    if can_pick(tokens, packed.shape[0]):
        args = (packed, top_k, renormalize, up_XJE, down_XEI, act)
        return Folded(*few_tokens(f.scaled, *args, squares=f.squares, eps=eps, onto=onto))
    choice = chosen(f.scaled, packed, top_k, renormalize, f.squares, eps)
    z = tiles(tokens * top_k, up_XJE.shape[0], f.hidden.dtype, alone=False)
    return Folded(*joined(in_order(f.scaled, choice, up_XJE, down_XEI, act, z), f.hidden.dtype, onto))


def few_tokens(
    x: torch.Tensor,
    router: torch.Tensor,
    top_k: int,
    renormalize: bool,
    up: torch.Tensor,
    down: torch.Tensor,
    act: str,
    *,
    squares: torch.Tensor | None = None,
    eps: float = 0.0,
    onto: Onto | None = None,
    z: Tiles | None = None,
) -> Ends:
    """For as many tokens as `can_pick` takes. `squares`: of the folded norm before; `onto`: what follows."""
    tokens = x.shape[0]
    z = z or tiles(tokens * top_k, router.shape[0], x.dtype, alone=True)
    alone = z.rows_alone >= tokens * top_k
    p = pick(x, router, top_k, renormalize, alone, squares, eps)
    if alone:
        h = up_product(x, up, down.shape[2], p.weights, p, act, z, p.factors)
        return down_alone(h, down, p.order, z, onto)
    return joined(few_apart(x, p, up, down, act, z), x.dtype, onto)


def few_apart(x: torch.Tensor, p: Picked, up: torch.Tensor, down: torch.Tensor, act: str, z: Tiles) -> Apart:
    """Results of the pairs of few tokens."""
    h = up_product(x, up, down.shape[2], p.weights, p, act, z, p.factors)
    return Apart(down_product(h, down, p.weights, p, z), p.weights, None)
