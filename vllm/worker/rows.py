"""Rows: the permanent places of running sequences, and everything true of them.

    row r:  tokens[r, :lens[r]]   known tokens (prompt, then sampled)
            computed[r]           how many of them have their KV in the cache
            tables[g][r, :]       block ids of KV group g, from position 0 on

The plan only carries changes; this is where the state lives. A row that has ended (a stop id, or its greatest length)
is `done`: a plan made before that was known may still name it, and then its writes go to the null block.
Does not know: sampling options, layers. Called by: runner, batch.
"""

from collections.abc import Iterable

import numpy as np

from vllm.protocol.kv import NULL_BLOCK, CrossKV, KVPlan, StateKV
from vllm.protocol.step import RowOpen
from vllm.util.arith import cdiv


class Rows:
    """State of all rows of a worker, as arrays on the host."""

    def __init__(self, max_rows: int, max_model_len: int, kv_plan: KVPlan) -> None:
        self.max_rows, self.max_model_len = max_rows, max_model_len
        # why: not zeroed, so a long table costs no memory until a sequence is that long
        self.tokens = np.empty((max_rows, max_model_len + 1), np.int32)
        self.lens = np.zeros(max_rows, np.int64)
        self.computed = np.zeros(max_rows, np.int64)
        self.max_lens = np.zeros(max_rows, np.int64)
        self.done = np.zeros(max_rows, bool)
        self.prompt_lens = np.zeros(max_rows, np.int64)
        self.seq_ids = np.full(max_rows, -1, np.int64)
        self.epochs = np.full(max_rows, -1, np.int64)
        self.stop_ids: list[frozenset[int]] = [frozenset()] * max_rows
        self.block_sizes = [g.block_size for g in kv_plan.groups]
        self.tables = [_table(max_rows, max_model_len, g.kind, g.block_size) for g in kv_plan.groups]
        self.table_lens = [[0] * max_rows for _ in kv_plan.groups]
        self.any_done = False

    def open(self, o: RowOpen) -> None:
        """A sequence takes its row."""
        r, length = o.row, len(o.token_ids)
        self.close(r)
        assert length <= self.max_model_len + 1, f"{length} tokens in a row of {self.max_model_len}"
        assert len(o.block_ids) == len(self.tables), f"{len(o.block_ids)} block tables for {len(self.tables)} groups"
        self.tokens[r, :length] = o.token_ids
        self.lens[r], self.computed[r], self.max_lens[r] = length, o.num_computed, o.max_len
        self.prompt_lens[r] = o.prompt_len
        self.seq_ids[r], self.epochs[r], self.stop_ids[r] = o.seq_id, o.epoch, o.stop_ids
        for group, ids in enumerate(o.block_ids):
            self.table_lens[group][r] = 0
            self.append_blocks(r, group, ids)

    def close(self, row: int) -> None:
        """The row is free. Its blocks are the host's business."""
        self.seq_ids[row] = -1
        if self.done[row]:
            self.done[row] = False
            self.any_done = bool(self.done.any())

    def append_blocks(self, row: int, group: int, ids: list[int]) -> None:
        """Continue a row's block table of a group."""
        start = self.table_lens[group][row]
        self.tables[group][row, start : start + len(ids)] = ids
        self.table_lens[group][row] = start + len(ids)

    def add_token(self, row: int, token: int) -> None:
        """A sampled token; marks the row done where it ends the sequence."""
        length = int(self.lens[row])
        self.tokens[row, length] = token
        self.lens[row] = length + 1
        if token in self.stop_ids[row] or length + 1 >= self.max_lens[row]:
            self.done[row] = self.any_done = True

    def add_tokens(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """One sampled token for each of many distinct rows."""
        lens = self.lens[rows]
        self.tokens[rows, lens] = tokens
        self.lens[rows] = lens + 1
        done = lens + 1 >= self.max_lens[rows]
        stop_ids = self.stop_ids
        for i, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
            if token in stop_ids[row]:
                done[i] = True
        if done.any():
            self.done[rows[done]] = self.any_done = True


def _table(max_rows: int, max_model_len: int, kind: object, block_size: int) -> np.ndarray:
    assert not isinstance(kind, (StateKV, CrossKV)), f"{type(kind).__name__} has no rows yet"
    return np.full((max_rows, cdiv(max_model_len, block_size) + 1), NULL_BLOCK, np.int32)


def copy_blocks(slabs: Iterable[object], copies: list[tuple[int, int]]) -> None:
    """Copy whole blocks inside every slab; all sources are read before any destination is written."""
    source, target = [c[0] for c in copies], [c[1] for c in copies]
    for slab in slabs:
        slab[target] = slab[source]  # type: ignore[index]
