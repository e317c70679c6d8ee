"""Mixture of experts: choose experts per token, run each expert on its tokens, add the weighted results.

T tokens, E hidden, X experts, I inner size, A experts per token.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vllm.ops.activation import activate, activate_mul
from vllm.ops.norm import add_rms_norm
from vllm.ops.table import Tol, op

CASES = ((1, 64, 8, 32, 2, True), (7, 64, 8, 32, 2, False), (40, 128, 16, 64, 4, True))
"""(T, E, X, I, A, renormalize)"""


@op(tol=Tol(f32=1e-6, bf16=1e-2, f16=2e-3), cases=CASES)
def route(logits_TX: torch.Tensor, top_k: int, renormalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights [T, A] float32, experts [T, A] int64): largest softmax probabilities, perhaps scaled to sum to one."""
    weights, experts = torch.softmax(logits_TX.float(), -1).topk(top_k, -1)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, experts


def _pack(router_XE: torch.Tensor) -> object:
    return router_XE.float()


@op(tol=Tol(f32=1e-5, bf16=1e-5, f16=1e-5), cases=CASES, pack=_pack)
def choose(x_TE: torch.Tensor, packed: object, top_k: int, renormalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """`route` of the router's product, in float32 whatever x is: small differences of it decide.

    `packed` is what this kernel's `pack(router_XE)` returned. Experts are int32 or int64.
    """
    assert isinstance(packed, torch.Tensor)
    return route(F.linear(x_TE.float(), packed), top_k, renormalize)


@op(tol=Tol(f32=1e-5, bf16=2e-2, f16=3e-3), cases=CASES)
def experts(
    x_TE: torch.Tensor,
    weights_TA: torch.Tensor,
    experts_TA: torch.Tensor,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> torch.Tensor:
    """Sum over a token's experts of weight * down(act(gate(x)) * up(x)), in float32. J = 2I (gate, then up)."""
    out = torch.zeros(x_TE.shape, dtype=torch.float32, device=x_TE.device)
    order = experts_TA.flatten().argsort(stable=True)
    counts = torch.bincount(experts_TA.flatten(), minlength=up_XJE.shape[0]).tolist()
    tokens, scale = order // experts_TA.shape[1], weights_TA.flatten()[order]
    start = 0
    for expert, count in enumerate(counts):
        if not count:
            continue
        mine = tokens[start : start + count]
        up = F.linear(x_TE[mine], up_XJE[expert])
        gated = activate_mul(up, act) if up.shape[-1] == 2 * down_XEI.shape[-1] else activate(up, act)
        y = F.linear(gated, down_XEI[expert])
        out.index_add_(0, mine, y.float() * scale[start : start + count, None])
        start += count
    return out.to(x_TE.dtype)


@op(tol=Tol(f32=1e-5, bf16=2e-2, f16=3e-3), cases=CASES)
def moe(
    x_TE: torch.Tensor,
    packed: object,
    top_k: int,
    renormalize: bool,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> torch.Tensor:
    """`choose`, then `experts`: for kernels that do both. `packed` is that of `choose`."""
    weights, ids = choose(x_TE, packed, top_k, renormalize)
    return experts(x_TE, weights, ids, up_XJE, down_XEI, act)  # type: ignore[no-any-return]


@dataclass(slots=True)
class Apart:
    """Results of experts before those of a token are added, which a norm behind them can do on its way."""

    results_PE: torch.Tensor
    """Of each of a token's experts, one token behind the other: what they weigh is in them. With `place` elsewhere."""
    weights_TA: torch.Tensor
    """[T, A] float32: what they weigh, where `place` says that it is not in them yet."""
    place_P: torch.Tensor | None
    """Where among the results each one of that order is."""


def total(a: Apart, dtype: torch.dtype) -> torch.Tensor:
    """The sum over a token's experts, in float32, rounded to `dtype`: [T, E]."""
    num = len(a.weights_TA)
    if a.place_P is None:
        return a.results_PE.view(num, -1, a.results_PE.shape[1]).float().sum(1).to(dtype)
    results = a.results_PE[a.place_P.long()].view(num, -1, a.results_PE.shape[1]).float()
    return (results * a.weights_TA[:, :, None]).sum(1).to(dtype)


@op(tol=Tol(f32=1e-5, bf16=2e-2, f16=3e-3), cases=CASES)
def moe_apart(
    x_TE: torch.Tensor,
    packed: object,
    top_k: int,
    renormalize: bool,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> Apart:
    """`moe` without the last sum."""
    y = moe(x_TE, packed, top_k, renormalize, up_XJE, down_XEI, act)
    return Apart(y, torch.ones((len(y), 1), dtype=torch.float32, device=y.device), None)


@op(tol=Tol(f32=1e-5, bf16=2e-2, f16=3e-3), cases=CASES)
def add_apart_rms_norm(
    a: Apart, residual_TE: torch.Tensor, weight_E: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`add_rms_norm` of the total. May overwrite the residual."""
    return add_rms_norm(total(a, residual_TE.dtype), residual_TE, weight_E, eps)  # type: ignore[no-any-return]
