"""min_tokens: ids that would end the sequence are forbidden until it has that many output tokens."""

import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines


def held_ids(row: RowOpen) -> list[int]:
    """Ids that the row may not choose before it has min_tokens; none when it has no such minimum."""
    return sorted(row.stop_ids | row.sampling.all_stop_token_ids) if row.sampling.min_tokens > 0 else []


class MinTokens:
    """Keeps, per row, the length at which it may end and the ids that would end it."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[int, torch.Tensor]] = {}

    def wants(self, row: RowOpen) -> bool:
        return row.sampling.min_tokens > 0

    def open(self, row: RowOpen) -> None:
        ids = torch.tensor(held_ids(row), dtype=torch.int64)
        self._rows[row.row] = row.prompt_len + row.sampling.min_tokens, ids

    def close(self, row: int) -> None:
        del self._rows[row]

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            free_at, ids = self._rows[lines.rows[n]]
            if lines.lens[n] < free_at:
                # why: a tokenizer may know end ids that the model has no logit for
                ids = ids[ids < logits.shape[1]]
                logits[n].index_fill_(0, ids.to(logits.device), float("-inf"))
