"""logit_bias: a number added to the logits of some tokens."""

import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines


class LogitBias:
    """Keeps, per row, ids and numbers as tensors."""

    def __init__(self) -> None:
        self._bias: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def wants(self, row: RowOpen) -> bool:
        return bool(row.sampling.logit_bias)

    def open(self, row: RowOpen) -> None:
        bias = row.sampling.logit_bias
        assert bias
        ids = torch.tensor(list(bias), dtype=torch.int64)
        self._bias[row.row] = ids, torch.tensor(list(bias.values()), dtype=torch.float32)

    def close(self, row: int) -> None:
        del self._bias[row]

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            ids, values = self._bias[lines.rows[n]]
            logits[n].index_add_(0, ids.to(logits.device), values.to(logits.device))
