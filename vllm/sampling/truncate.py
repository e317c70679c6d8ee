"""top_k, top_p and min_p: each keeps the tokens whose logit is at least some threshold, so all three are one number.

    min_p   logit >= max + log(min_p)
    top_k   logit >= the k-th largest            (equal logits at the edge stay, so no order among them matters)
    top_p   logit >= the smallest of the largest tokens that together have mass p, after the other two

Work is done on the few largest logits of a line. A line whose mass lies further down is cut whole, without sorting it:
its mass is added up in narrow bins, and only the bin in which the threshold lies is sorted. N lines, V vocabulary, C
candidates. Called by: sampler.
"""

import math
from dataclasses import dataclass

import torch

_CLASSES = (64, 512)
_BINS, _SPAN = 4096, 32.0
"""Bins between the largest logit and one that weighs e^-32 of it; the last bin takes all below."""
_SLACK = 32
"""Candidates beyond the k-th, so that equal logits at the edge are seen."""


@dataclass(slots=True)
class Kept:
    """Candidates of N lines: logits [N, C] (-inf: not kept) and token ids [N, C]; None where column j is token j."""

    logits: torch.Tensor
    ids: torch.Tensor | None

    def over(self, vocab: int) -> torch.Tensor:
        """Logits [N, V], -inf for what is not kept."""
        if self.ids is None:
            return self.logits
        full = self.logits.new_full((self.logits.shape[0], vocab), float("-inf"))
        return full.scatter_(1, self.ids, self.logits)


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
    while count <= _CLASSES[-1] or logits.shape[1] <= 8 * _CLASSES[-1]:
        kept, ids, short = _try(logits, count, top_k, top_p, min_p)
        if count == logits.shape[1] or not bool(short.any()):
            return [*pieces, (here, Kept(kept, ids))]
        done = ~short
        pieces.append((here[done], Kept(kept[done], ids[done])))
        here, logits = here[short], logits[short]
        top_k, top_p, min_p = top_k[short], top_p[short], min_p[short]
        count = next((c for c in _CLASSES if c > count), logits.shape[1])
    whole = [_cut_whole(*line) for line in zip(logits, top_k.tolist(), top_p.tolist(), min_p.tolist(), strict=True)]
    return [*pieces, (here, Kept(torch.stack(whole), None))]


def _cut_whole(line: torch.Tensor, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """The line [V] with -inf for what is not kept."""
    top = line.max()
    bound = top + math.log(min_p) if min_p > 0 else line.new_tensor(float("-inf"))
    if 0 < top_k < line.shape[0]:
        bound = torch.maximum(bound, line.topk(top_k).values[-1])
    if top_p < 1:
        bound = torch.maximum(bound, _mass_bound(line, bound, top, top_p))
    return line.masked_fill(line < bound, float("-inf"))


def _mass_bound(line: torch.Tensor, bound: torch.Tensor, top: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest logit of the largest ones that together have `top_p` of the mass at or above `bound`."""
    weights = torch.where(line >= bound, (line - top).exp(), 0.0).double()
    bins = ((top - line) * (_BINS / _SPAN)).clamp_(0, _BINS - 1).long()
    mass = torch.bincount(bins, weights, minlength=_BINS)
    upto = mass.cumsum(0)
    goal = top_p * float(upto[-1])
    at = int(torch.searchsorted(upto, goal).clamp(max=_BINS - 1))
    inside, order = line[(bins == at) & (line >= bound)].sort(descending=True)
    assert order.numel(), "the bin in which the mass is reached holds a token"
    each = (inside - top).exp().double()
    before = upto[at] - mass[at] + each.cumsum(0) - each
    return inside[max(0, int((before < goal).sum()) - 1)]


def _try(
    logits: torch.Tensor, count: int, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `count` largest: (logits, -inf for what is not kept; ids; [N] bool: there may be more to keep)."""
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
    return values.masked_fill(~chosen, float("-inf")), ids, cut_open
