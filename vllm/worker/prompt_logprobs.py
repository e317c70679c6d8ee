"""Log-probabilities of prompt tokens, for rows that asked: the logits at position p say how likely token p + 1 was.

Logits of a whole prompt would be gigabytes, so they are made in slices of 512 positions. Called by: runner.
"""

from collections.abc import Callable

import torch

from vllm.protocol.step import TokenLogprobs
from vllm.sampling.logprobs import report

SLICE = 512


def prompt_logprobs(
    hidden: torch.Tensor,
    first: int,
    tokens: torch.Tensor,
    to_logits: Callable[[torch.Tensor], torch.Tensor],
    num: int,
    as_logits: bool,
    wanted: list[int] | None,
    one_by_one: bool = False,
) -> list[tuple[int, TokenLogprobs]]:
    """[(position, entry for the prompt token there)].

    `hidden` [n, E] are positions first .. first + n - 1; `tokens` [n] int64 are the prompt tokens that follow each.
    `one_by_one`: sums are taken line by line (see Sampler).
    """
    out: list[tuple[int, TokenLogprobs]] = []
    for start in range(0, hidden.shape[0], SLICE):
        logits = to_logits(hidden[start : start + SLICE])
        size = 1 if one_by_one else logits.shape[0]
        for at in range(0, logits.shape[0], size):
            follow = tokens[start + at : start + at + size]
            entries = report(logits[at : at + size], follow, [num] * size, as_logits, [wanted] * size)
            out.extend((first + start + at + i + 1, entry) for i, entry in enumerate(entries))
    return out
