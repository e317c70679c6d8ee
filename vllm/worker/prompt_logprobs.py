"""Log-probabilities of prompt tokens, for rows that asked: the logits at position p say how likely token p + 1 was.

Logits of a whole prompt would be gigabytes, so they are made in slices: of 512 positions, or as planning
counts on. Called by: runner.
"""

from collections.abc import Callable

import torch

from vllm.protocol.step import TokenLogprobs
from vllm.sampling.logprobs import report


def positions_at_once(device: torch.device, max_lines: int) -> int:
    """Positions of a slice where a step has at most so many lines of logits: on a CPU it needs no more memory."""
    return min(512, max(8, max_lines * 2 // 3)) if device.type == "cpu" else 512


def prompt_logprobs(
    hidden: torch.Tensor,
    first: int,
    tokens: torch.Tensor,
    to_logits: Callable[[torch.Tensor], torch.Tensor],
    num: int,
    as_logits: bool,
    wanted: list[int] | None,
    one_by_one: bool = False,
    size: int = 512,
) -> list[tuple[int, TokenLogprobs]]:
    """[(position, entry for the prompt token there)].

    `hidden` [n, E] are positions first .. first + n - 1; `tokens` [n] int64 are the prompt tokens that follow each.
    `one_by_one`: sums are taken line by line (see Sampler). `size`: of a slice.
    """
    out: list[tuple[int, TokenLogprobs]] = []
    for start in range(0, hidden.shape[0], size):
        logits = to_logits(hidden[start : start + size])
        many = 1 if one_by_one else logits.shape[0]
        for at in range(0, logits.shape[0], many):
            follow = tokens[start + at : start + at + many]
            entries = report(logits[at : at + many], follow, [num] * many, as_logits, [wanted] * many)
            out.extend((first + start + at + i + 1, entry) for i, entry in enumerate(entries))
    return out
