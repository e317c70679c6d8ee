"""Logits to tokens: run the stages that somebody asked for, divide by temperature, cut, draw.

    stages (in order) -> greedy: argmax
                      -> temperature -> top_k, top_p, min_p (only lines that ask) -> draw with stateless noise

Rows that ask for nothing special pay for nothing: a batch of greedy lines is one argmax, a batch of plain temperature
lines one division and one draw. Does not know: requests, steps, layers. Invariant: a line's token depends on its
logits, its row's options, seed and position, never on its neighbours. Called by: worker.
"""

from collections.abc import Iterable

import numpy as np
import torch

from vllm.ops.draw import noise_keys
from vllm.ops.table import Kernels
from vllm.platforms.base import platform_of
from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines, Sampled, Stage
from vllm.sampling.logprobs import report
from vllm.sampling.stages import make_stages
from vllm.sampling.truncate import first_count, truncate

NO_TOKEN = -1
NOTHING_LEFT = "the request's options leave no token to choose from"
PORTION = {"cpu": 16}
_PORTION = 256
"""Lines that are copied, cut or reported at a time: planning counts on it (planning/host.py)."""


def _sent(x: np.ndarray, device: torch.device) -> torch.Tensor:
    """On the device, without waiting for what it does now."""
    return platform_of(device).send(torch.from_numpy(x), device.index or 0)


class Sampler:
    """Holds the options of the rows; samples the lines of a step."""

    def __init__(
        self,
        ops: Kernels,
        max_rows: int,
        logprobs_mode: str = "raw_logprobs",
        extra_stages: Iterable[Stage] = (),
        deterministic: bool = False,
    ) -> None:
        """`deterministic`: sums are taken line by line, for a library may add N lines in another order."""
        self._ops, self._one_by_one = ops, deterministic
        self._stages = [*make_stages(), *extra_stages]
        self._raw, self._as_logits = logprobs_mode.startswith("raw"), logprobs_mode.endswith("logits")
        self._by_row: dict[int, list[int]] = {}
        """row -> indices of the stages that it asked for; rows without any are absent."""
        self._temperature = np.zeros(max_rows, np.float32)
        self._seed = np.zeros(max_rows, np.int64)
        self._top_k = np.zeros(max_rows, np.int64)
        self._top_p = np.ones(max_rows, np.float32)
        self._min_p = np.zeros(max_rows, np.float32)
        self._logprobs: dict[int, tuple[int, list[int] | None]] = {}

    def open(self, row: RowOpen) -> None:
        """A sequence takes a row."""
        p, r = row.sampling, row.row
        self._temperature[r], self._top_k[r], self._top_p[r], self._min_p[r] = p.temperature, p.top_k, p.top_p, p.min_p
        self._seed[r] = np.uint64(row.seed & 0xFFFFFFFFFFFFFFFF).astype(np.int64)
        asked = [i for i, stage in enumerate(self._stages) if stage.wants(row)]
        for i in asked:
            self._stages[i].open(row)
            self._by_row.setdefault(r, []).append(i)
        if p.logprobs is not None or p.logprob_token_ids is not None:
            self._logprobs[r] = (p.logprobs or 0), p.logprob_token_ids

    def close(self, row: int) -> None:
        """The row is free again. A row that is not open may be closed."""
        for i in self._by_row.pop(row, ()):
            self._stages[i].close(row)
        self._logprobs.pop(row, None)

    def stages_of(self, row: int) -> list[Stage]:
        """The stages that the row asked for."""
        return [self._stages[i] for i in self._by_row.get(row, ())]

    def sample(self, logits: torch.Tensor, lines: Lines, waits: bool = True) -> Sampled:
        """Choose a token for each line of logits [N, V] float32, which are overwritten.

        Not `waits`: nothing is asked of the device, and a line whose options leave no token gets the token -1.
        """
        failed: dict[int, str] = {}
        reported = [n for n, row in enumerate(lines.rows) if row in self._logprobs] if self._logprobs else []
        untouched, dead = self._before_stages(logits, reported), None
        if self._by_row:
            dead = self._run_stages(logits, lines, failed, waits)
        rows = np.array(lines.rows)
        temperature = self._temperature[rows]
        random = np.flatnonzero(temperature > 0)
        if random.size == 0:
            tokens = logits.argmax(-1)
        elif random.size == len(rows):
            tokens = self._random(logits, rows, np.array(lines.lens), reported)
        else:
            tokens, lens = logits.argmax(-1), np.array(lines.lens)
            for some in self._portions(random, logits.device):
                where = _sent(some, logits.device)
                part = logits[where]
                tokens[where] = self._random(part, rows[some], lens[some], reported)
                if reported and not self._raw:
                    logits[where] = part
        out = Sampled(tokens, failed=failed)
        if reported:
            self._report(out, logits if untouched is None else untouched, tokens, lines, reported)
        if dead is not None:
            out.tokens = torch.where(dead, NO_TOKEN, tokens)
        return out

    def _before_stages(self, logits: torch.Tensor, reported: list[int]) -> torch.Tensor | None:
        """Copies of the reported lines as they came from the model; None when they are read after the stages."""
        if not reported or not self._raw:
            return None
        return logits[reported]

    def _run_stages(
        self, logits: torch.Tensor, lines: Lines, failed: dict[int, str], waits: bool
    ) -> torch.Tensor | None:
        """Which lines have no token left is found out here, or (not `waits`) what comes back says it."""
        which: dict[int, list[int]] = {}
        for n, row in enumerate(lines.rows):
            for i in self._by_row.get(row, ()):
                which.setdefault(i, []).append(n)
        for i in sorted(which):
            for n in which[i]:
                try:
                    self._stages[i].apply(logits, lines, [n], failed)
                except Exception as error:  # why: one request's options must not end the step of all others
                    failed[n] = f"{type(self._stages[i]).__name__} failed with {type(error).__name__}: {error}"
        for n in {n for mine in which.values() for n in mine}:
            if waits and n not in failed and not bool(logits[n].max() > float("-inf")):
                failed[n] = NOTHING_LEFT
            if n in failed:
                logits[n] = 0.0
        if waits:
            return None
        dead = ~(logits.amax(-1) > float("-inf"))
        logits.masked_fill_(dead[:, None], 0.0)
        return dead

    def _random(self, logits: torch.Tensor, rows: np.ndarray, lens: np.ndarray, reported: list[int]) -> torch.Tensor:
        """Tokens of lines with a temperature. `logits` become the processed ones where they are to be reported."""
        device = logits.device
        logits.div_(_sent(self._temperature[rows], device)[:, None])
        keys = noise_keys(_sent(self._seed[rows], device), _sent(lens, device))
        top_k, top_p, min_p = self._top_k[rows], self._top_p[rows], self._min_p[rows]
        cut = (top_k > 0) | (top_p < 1) | (min_p > 0)
        if not cut.any():
            return self._ops.draw(logits, keys)
        tokens = torch.empty(len(rows), dtype=torch.int64, device=device)
        for some in self._portions(np.flatnonzero(~cut), device):
            where = _sent(some, device)
            tokens[where] = self._ops.draw(logits[where], keys[where])
        counts = np.array([first_count(int(k), logits.shape[1]) if c else 0 for k, c in zip(top_k, cut, strict=True)])
        for count in np.unique(counts[cut]):
            for chosen in self._portions(np.flatnonzero(counts == count), device):
                where = _sent(chosen, device)
                limits = (_sent(x[chosen], device) for x in (top_k, top_p, min_p))
                those = logits if len(chosen) == len(rows) else logits[where]
                for part, kept in truncate(those, *limits, int(count)):
                    lines = where[part]
                    tokens[lines] = self._ops.draw(kept.logits, keys[lines], kept.ids)
                    if reported and not self._raw:
                        logits[lines] = kept.over(logits.shape[1])
        return tokens

    def _portions(self, lines: np.ndarray, device: torch.device) -> list[np.ndarray]:
        """What is computed together of these lines."""
        size = 1 if self._one_by_one else PORTION.get(device.type, _PORTION)
        return [lines[start : start + size] for start in range(0, len(lines), size)]

    def _report(
        self, out: Sampled, logits: torch.Tensor, tokens: torch.Tensor, lines: Lines, reported: list[int]
    ) -> None:
        nums, wanted = zip(*(self._logprobs[lines.rows[n]] for n in reported), strict=True)
        for part in self._portions(np.arange(len(reported)), logits.device):
            at, here = part.tolist(), [reported[i] for i in part]
            asked = [nums[i] for i in at], self._as_logits, [wanted[i] for i in at]
            entries = report(logits[at if self._raw else here], tokens[here], *asked)
            out.logprobs.update(zip((reported[i] for i in at), entries, strict=True))
