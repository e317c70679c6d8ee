"""Steps of one token per row on a processor: recorded once for each number of rows, then run as one.

    rows ─▶ inputs that stay where they are ─▶ tape (embed .. logits) ─▶ logits [N, V], which hold until the next step

What may be recorded, and how, is the attention kernel's business: without its `recorder` there are no tapes. A model
that turns out to look at values on its way runs step by step as before. Does not know: plans, sampling.
Called by: runner, make.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Kernels
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.util.arith import cdiv
from vllm.util.log import get_logger
from vllm.worker.batch import gather
from vllm.worker.rows import Rows

MOST = 16
"""Rows of a recorded step. With more of them the calls cost little beside the work."""
log = get_logger(__name__)


class Tapes:
    """The recorded steps of one model."""

    def __init__(self, model: Model, recorder: Any, max_len: int, block_sizes: list[int], max_rows: int) -> None:
        self.most = min(MOST, max_rows)
        self._model, self._recorder, self._max_len = model, recorder, max_len
        n, long = self.most, torch.int64
        self._ids, self._positions = torch.zeros(n, dtype=long), torch.zeros(n, dtype=long)
        self._starts, self._lens = torch.arange(n + 1, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)
        self._slots = [torch.zeros(n, dtype=long) for _ in block_sizes]
        self._tables = [torch.zeros(n, cdiv(max_len, size) + 1, dtype=torch.int32) for size in block_sizes]
        self._block_sizes = block_sizes
        self._tapes: dict[int, tuple[Any, Batch]] = {}

    def logits(self, rows: Rows, planned: np.ndarray) -> torch.Tensor:
        """Logits [N, V] of the next token of each planned row."""
        n = len(planned)
        batch = gather(rows, planned, np.ones(n, np.int64), torch.device("cpu"))
        if self.most == 0:
            return self._model.logits(self._model(batch))
        self._ids[:n], self._positions[:n], self._lens[:n] = batch.token_ids, batch.positions, batch.seq_lens
        for group, slots, table in zip(batch.groups, self._slots, self._tables, strict=True):
            slots[:n] = group.slot_mapping
            table[:n, : group.block_table.shape[1]] = group.block_table
        found = self._tapes.get(n)
        return found[0].run() if found is not None else self._record(n, batch)

    def _record(self, n: int, batch: Batch) -> torch.Tensor:
        lasting = Batch(
            token_ids=self._ids[:n],
            positions=self._positions[:n],
            query_start=self._starts[: n + 1],
            seq_lens=self._lens[:n],
            groups=[
                GroupBatch(s[:n], t[:n], size)
                for s, t, size in zip(self._slots, self._tables, self._block_sizes, strict=True)
            ],
            num_tokens=n,
            num_seqs=n,
            max_query_len=1,
            max_seq_len=self._max_len,
            query_lens=[1] * n,
            host_seq_lens=batch.host_seq_lens,
        )
        inputs = [self._ids, self._positions, self._lens, *self._slots, *self._tables]
        try:
            out, tape = self._recorder.record(lambda: self._model.logits(self._model(lasting)), inputs)
        except RuntimeError as error:
            log.debug("steps are not recorded: %s", error)
            self.most = 0
            return self._model.logits(self._model(batch))
        self._tapes[n] = tape, lasting
        return out  # type: ignore[no-any-return]


def make_tapes(model: Model, ops: Kernels, kv_plan: KVPlan, worker_plan: WorkerPlan) -> Tapes | None:
    """Tapes where the chosen attention kernel can be recorded."""
    recorder = ops.chosen["attention"].helpers.get("recorder")
    if recorder is None:
        return None
    sizes = [g.block_size for g in kv_plan.groups]
    return Tapes(model, recorder(), worker_plan.max_model_len, sizes, worker_plan.max_num_seqs)
