"""allowed_token_ids: every other token is forbidden."""

import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines


class AllowedTokens:
    """Keeps, per row, its ids as a tensor."""

    def __init__(self) -> None:
        self._ids: dict[int, torch.Tensor] = {}

    def wants(self, row: RowOpen) -> bool:
        return row.sampling.allowed_token_ids is not None

    def open(self, row: RowOpen) -> None:
        self._ids[row.row] = torch.tensor(row.sampling.allowed_token_ids, dtype=torch.int64)

    def close(self, row: int) -> None:
        del self._ids[row]

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            ids = self._ids[lines.rows[n]].to(logits.device)
            kept = logits[n, ids]
            logits[n].fill_(float("-inf"))
            logits[n, ids] = kept
