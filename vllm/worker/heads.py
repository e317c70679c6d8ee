"""Heads of a runner: who reads the hidden states of its rows' tokens in place of sampling from them.

Does not know: what a head makes of them. Invariant: a head that fails ends its row alone. Called by: runner, ahead.
"""

from collections.abc import Iterable

import numpy as np
import torch

from vllm.protocol.step import RowOpen, StepResult
from vllm.sampling.lines import Head
from vllm.worker.rows import Rows


class Heads:
    """Which row is read by which head."""

    def __init__(self, heads: Iterable[Head]) -> None:
        self._heads = list(heads)
        self._of: dict[int, Head] = {}

    def open(self, row: RowOpen) -> None:
        """A row takes its place; called again after a preemption."""
        for head in self._heads:
            if head.wants(row):
                head.open(row)
                self._of[row.row] = head

    def close(self, row: int) -> None:
        """The row is free again."""
        head = self._of.pop(row, None)
        if head is not None:
            head.close(row)

    def reads(self, planned: np.ndarray) -> bool:
        """Whether somebody's states of this step are asked for."""
        return bool(self._of) and not self._of.keys().isdisjoint(planned.tolist())

    def read(
        self, rows: Rows, planned: np.ndarray, num_query: np.ndarray, hidden: torch.Tensor, result: StepResult
    ) -> None:
        """Show each head its rows' states; before the step's tokens count as computed."""
        if not self.reads(planned):
            return
        end = 0
        for row, count in zip(planned.tolist(), num_query.tolist(), strict=True):
            begin, end = end, end + count
            head = self._of.get(row)
            if head is None:
                continue
            seq_id = int(rows.seq_ids[row])
            try:
                found = head.read(row, int(rows.computed[row]), hidden[begin:end])
            except Exception as error:  # why: one request's wish must not end the step of all others
                result.failed.append((seq_id, int(rows.epochs[row]), str(error)))
                continue
            if found is not None:
                result.states[seq_id] = found
