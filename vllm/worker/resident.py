"""Rows on the device: one arena of words, changed by lists of (place, value) that the host sends ahead of a step.

    | seeds | last | computed | temperatures | free_at | forbidden | options | lines | table of group 0 | group 1 | ..
                    each with a place per row and one for the idle row, each from a multiple of four words on

In a run of decodes that keep their blocks nothing is sent at all. Invariant: a change is sent on the stream of the
steps, so steps before it see the old state. Does not know: plans, models. Called by: ahead, graphs.
"""

import numpy as np
import torch

from vllm.ops.rows import FORBIDDEN, RowState
from vllm.platforms.base import platform_of
from vllm.protocol.step import RowOpen
from vllm.worker.options import NUM_WORDS, Options
from vllm.worker.rows import Rows


class Resident:
    """The device's copy of what a decode step reads of `rows`."""

    def __init__(self, rows: Rows, device: torch.device, max_lines: int, vocab: int, logprobs_mode: str) -> None:
        self._device, self._platform, self._rows = device, platform_of(device), rows
        self.idle = rows.max_rows
        one, widths = self.idle + 1, [t.shape[1] for t in rows.tables]
        sizes = [2 * one, one, one, one, one, one * FORBIDDEN, one * NUM_WORDS, max_lines, *(one * w for w in widths)]
        starts = np.cumsum([0] + [-(-size // 4) * 4 for size in sizes])
        self._words = torch.zeros(int(starts[-1]), dtype=torch.int32, device=device)
        self._seeds, self._last, self._computed, self._heat, self._free, self._forbidden = starts[:6]
        self._options, self._lines, self._tables, self._widths = starts[6], starts[7], starts[8:-1], widths
        parts = [self._words[a : a + n] for a, n in zip(starts[:-1], sizes, strict=True)]
        self.options = Options(parts[6].view(NUM_WORDS, one), vocab, logprobs_mode)
        self.lines = parts[7]
        self.state = RowState(
            last=parts[1],
            computed=parts[2],
            temperature=parts[3].view(torch.float32),
            seed=parts[0].view(torch.int64),
            free_at=parts[4],
            forbidden=parts[5].view(one, FORBIDDEN),
            tables=[part.view(one, w) for part, w in zip(parts[8:], widths, strict=True)],
            block_sizes=rows.block_sizes,
            options=self.options.state,
        )
        self._at: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._known = np.zeros(one, np.int64)
        """What `computed` of the device is, or will be after the steps it was given."""
        self._named = np.zeros(0, np.int64)
        """The rows that `lines` names."""

    def open(self, o: RowOpen, forbidden: list[int], words: np.ndarray) -> None:
        """A sequence takes a row: everything but its block tables, which `blocks` adds. `words` are its options'."""
        r, p = o.row, o.sampling
        heat = np.array([p.temperature], np.float32).view(np.int32)
        seed = np.array([o.seed & 0xFFFFFFFFFFFFFFFF], np.uint64).view(np.int32)
        self._put(self._seeds + 2 * r, seed)
        self._put(self._last + r, [o.token_ids[-1]])
        self._put(self._computed + r, [o.num_computed])
        self._put(self._heat + r, heat)
        self._put(self._free + r, [o.prompt_len + p.min_tokens if forbidden else 0])
        if forbidden:
            self._put(self._forbidden + r * FORBIDDEN, (forbidden + [forbidden[0]] * FORBIDDEN)[:FORBIDDEN])
        self._at.append(self._options + r + np.arange(NUM_WORDS) * (self.idle + 1))
        self._values.append(words)
        self._known[r] = o.num_computed

    def blocks(self, row: int, group: int, start: int, ids: list[int]) -> None:
        """Entries `start` .. of a row's block table."""
        self._put(self._tables[group] + row * self._widths[group] + start, ids)

    def name(self, rows: np.ndarray, bucket: int) -> None:
        """Let the first lines be `rows`, the rest of the bucket idle; each has tokens up to `computed` of the host."""
        stale = rows[self._known[rows] != self._rows.computed[rows]]
        for r in stale.tolist():
            self._put(self._computed + r, [self._rows.computed[r]])
        wanted = np.full(bucket, self.idle, np.int64)
        wanted[: len(rows)] = rows
        if len(self._named) < bucket or not np.array_equal(self._named[:bucket], wanted):
            self._put(self._lines, wanted)
            self._named = wanted

    def sampled(self, rows: np.ndarray, lens: np.ndarray) -> None:
        """A step has been given to the device that leaves these rows with `lens` computed tokens."""
        self._known[rows] = lens

    def flush(self) -> None:
        """Send the changes so far."""
        if not self._at:
            return
        pairs = torch.from_numpy(np.concatenate((*self._at, *self._values)))
        there = self._platform.send(pairs, self._device.index or 0)
        half = len(pairs) // 2
        self._words.index_copy_(0, there[:half], there[half:].to(torch.int32))
        self._at, self._values = [], []

    def _put(self, start: int, values: np.ndarray | list[int]) -> None:
        self._at.append(np.arange(start, start + len(values)))
        self._values.append(np.asarray(values, np.int64))
