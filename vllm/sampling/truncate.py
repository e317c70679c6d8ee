"""top_k, top_p and min_p: each keeps the tokens whose logit is at least some threshold, so all three are one number.

    min_p   logit >= max + log(min_p)
    top_k   logit >= the k-th largest            (equal logits at the edge stay, so no order among them matters)
    top_p   logit >= the smallest of the largest tokens that together have mass p, after the other two

Work is done on the few largest logits of a line; a line whose mass lies further down is sorted whole. Either way the
kept set is the same. N lines, V vocabulary, C candidates. Called by: sampler.
"""

from dataclasses import dataclass

import torch

_CLASSES = (64, 512, 4096)
_SLACK = 32
"""Candidates beyond the k-th, so that equal logits at the edge are seen."""


@dataclass(slots=True)
class Kept:
    """Candidates of N lines in falling order: logits [N, C] (-inf: not kept) and token ids [N, C]."""

    logits: torch.Tensor
    ids: torch.Tensor


def first_count(top_k: int, vocab: int) -> int:
    """How many of the largest logits to look at first: a function of the line alone, never of its neighbours."""
    need = top_k + _SLACK if top_k else _CLASSES[1]
    return next((c for c in _CLASSES if need <= c < vocab), vocab)


def truncate(
    logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor, count: int
) -> list[tuple[torch.Tensor, Kept]]:
    """[(lines [M], what survives of them)]; together the pieces hold every line once.

    Logits [N, V] are over temperature; top_k [N] int64 (0: all), top_p and min_p [N] float32; `count` is the
    `first_count` of all the lines. Lines for which it is too small come in a piece of their own.
    """
    here = torch.arange(logits.shape[0], device=logits.device)
    pieces = []
    while True:
        kept, short = _try(logits, count, top_k, top_p, min_p)
        if count == logits.shape[1] or not bool(short.any()):
            return [*pieces, (here, kept)]
        done = ~short
        pieces.append((here[done], Kept(kept.logits[done], kept.ids[done])))
        here, logits = here[short], logits[short]
        top_k, top_p, min_p = top_k[short], top_p[short], min_p[short]
        count = next((c for c in _CLASSES if count < c < logits.shape[1]), logits.shape[1])


def _try(
    logits: torch.Tensor, count: int, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor
) -> tuple[Kept, torch.Tensor]:
    """(kept among the `count` largest, [N] bool: there may be more to keep)."""
    values, ids = logits.topk(count, dim=-1)
    top = values[:, :1]
    bound = torch.where(min_p > 0, top[:, 0] + min_p.log(), float("-inf"))
    kth = values.gather(1, (top_k - 1).clamp(0, count - 1)[:, None])[:, 0]
    bound = torch.where(top_k > 0, torch.maximum(bound, kth), bound)
    inside = values >= bound[:, None]
    weights = torch.where(inside, (values - top).exp(), 0.0)
    # why: without a bound the tail has mass too; with one that lies inside, the candidates hold all of it
    open_end = inside[:, -1] & (count < logits.shape[1])
    total = weights.sum(-1)
    if bool(open_end.any()):
        tail = (logits[open_end] - top[open_end]).exp()
        total[open_end] = torch.where(logits[open_end] >= bound[open_end, None], tail, 0.0).sum(-1)
    before = weights.cumsum(-1) - weights
    chosen = inside & ((before < (top_p * total)[:, None]) | (top_p >= 1)[:, None])
    chosen[:, 0] = True
    last = values.gather(1, chosen.sum(-1, keepdim=True) - 1)
    chosen = inside & (values >= last)
    cut_open = chosen[:, -1] & (count < logits.shape[1])
    return Kept(values.masked_fill(~chosen, float("-inf")), ids), cut_open
