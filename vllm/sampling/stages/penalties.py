"""presence, frequency and repetition penalties.

Repetition divides positive and multiplies negative logits of tokens in prompt or output; frequency takes its number
once per occurrence in the output, presence once per distinct token of it.
"""

import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines


class Penalties:
    """Keeps, per row, its three numbers and the distinct tokens of the prompt."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[float, float, float, int, torch.Tensor]] = {}

    def wants(self, row: RowOpen) -> bool:
        p = row.sampling
        return p.presence_penalty != 0.0 or p.frequency_penalty != 0.0 or p.repetition_penalty != 1.0

    def open(self, row: RowOpen) -> None:
        p = row.sampling
        # why: the prompt does not change, so a long one is sorted once and not in every step
        prompt = torch.tensor(sorted(set(row.token_ids[: row.prompt_len])), dtype=torch.int64)
        numbers = p.presence_penalty, p.frequency_penalty, p.repetition_penalty
        self._rows[row.row] = (*numbers, row.prompt_len, prompt)

    def close(self, row: int) -> None:
        del self._rows[row]

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            row = lines.rows[n]
            presence, frequency, repetition, prompt_len, prompt = self._rows[row]
            output = lines.tokens[row, prompt_len : lines.lens[n]].to(logits.device, torch.int64)
            ids, counts = output.unique(return_counts=True)
            line = logits[n]
            if repetition != 1.0:
                seen = torch.cat((prompt.to(logits.device), ids)).unique()
                x = line[seen]
                line[seen] = torch.where(x > 0, x / repetition, x * repetition)
            if ids.numel() and (frequency != 0.0 or presence != 0.0):
                line[ids] -= frequency * counts.float() + presence
