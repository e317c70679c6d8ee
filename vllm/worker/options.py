"""What rows ask for beyond temperature and min_tokens, and where it is done.

    nothing                                              the device: `pick`
    top_k, top_p, min_p, penalties, bias, allowed ids    the device: `pick_any`, from numbers and tables kept there
    log-probabilities of the most likely tokens          the device, beside the next step
    a user's code, runs of bad words, a feature's stage  the host, which must know every token first

Tables belong to slots: counts of tokens (every row has its own) and numbers to add (a few; when they are all taken, the
host does it). Does not know: plans, graphs. Called by: ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vllm.ops.rows import FORBIDDEN, SEEN, RowOptions
from vllm.platforms.base import Fetched, platform_of
from vllm.protocol.step import RowOpen, TokenLogprobs
from vllm.sampling.lines import Stage
from vllm.sampling.logprobs import entries, measure
from vllm.sampling.stages.allowed import AllowedTokens
from vllm.sampling.stages.bad_words import BadWords
from vllm.sampling.stages.logit_bias import LogitBias
from vllm.sampling.stages.min_tokens import MinTokens, held_ids
from vllm.sampling.stages.penalties import Penalties

_ON_DEVICE = (AllowedTokens, BadWords, LogitBias, MinTokens, Penalties)
_WORDS = ("top_k", "top_p", "min_p", "presence", "frequency", "repetition", "count_slot", "bias_slot")
NUM_WORDS = len(_WORDS)
MOST_REPORTED = 128
"""Most likely tokens that are reported without the host."""


class Options:
    """Who asks for what; the tables."""

    def __init__(self, words: torch.Tensor, vocab: int, logprobs_mode: str) -> None:
        """`words` [NUM_WORDS, rows + 1] int32: the place of the numbers."""
        rows, device = words.shape[1] - 1, words.device
        self._raw, self._as_logits = logprobs_mode.startswith("raw"), logprobs_mode.endswith("logits")
        self._vocab, self._platform, self._device = vocab, platform_of(device), device
        parts = {
            name: words[i] if name.endswith(("_k", "_slot")) else words[i].view(torch.float32)
            for i, name in enumerate(_WORDS)
        }
        slots = max(4, rows // 8)
        counts = torch.zeros((rows + 1, vocab), dtype=torch.int16, device=device)
        self.state = RowOptions(**parts, counts=counts, bias=torch.zeros((slots + 1, vocab), device=device))
        self.state.top_p.fill_(1.0)
        self._free, self._taken = list(range(slots, 0, -1)), dict[int, int]()
        self.hosted: set[int] = set()
        """Rows that need the host."""
        self.asking: set[int] = set()
        """Rows that `pick` cannot serve; `pick_any` can, or the host."""
        self.reported: dict[int, int] = {}
        """Rows that want log-probabilities, and how many of the most likely tokens."""

    def open(self, o: RowOpen, stages: list[Stage]) -> np.ndarray:
        """A sequence takes a row: fill its tables. Returns its words."""
        self.close(o.row)
        p, row, kinds = o.sampling, o.row, {type(stage) for stage in stages}
        cut = p.temperature > 0 and (p.top_k > 0 or p.top_p < 1 or p.min_p > 0)
        if self._needs_host(o, stages):
            self.hosted.add(row)
            return self._words(o, False, 0, 0)
        if p.logprobs is not None:
            self.reported[row] = p.logprobs
        count = row + 1 if Penalties in kinds else 0
        bias = 0
        if kinds & {AllowedTokens, BadWords, LogitBias}:
            bias = self._taken[row] = self._free.pop()
            self._add(o, self.state.bias[bias])
        if count:
            self._count(o, self.state.counts[count])
        if cut or count or bias:
            self.asking.add(row)
        return self._words(o, cut, count, bias)

    def close(self, row: int) -> None:
        """The row is free again."""
        self.hosted.discard(row)
        self.asking.discard(row)
        self.reported.pop(row, None)
        if row in self._taken:
            self._free.append(self._taken.pop(row))

    def _needs_host(self, o: RowOpen, stages: list[Stage]) -> bool:
        p, kinds = o.sampling, {type(stage) for stage in stages}
        runs = o.features.get("bad_words_ids") or []
        assert isinstance(runs, list)
        return (
            not kinds <= set(_ON_DEVICE)
            or len(held_ids(o)) > FORBIDDEN
            or (bool(kinds & {AllowedTokens, BadWords, LogitBias}) and not self._free)
            or any(len(run) > 1 for run in runs)
            or p.logprob_token_ids is not None
            or (p.logprobs is not None and not (self._raw and 0 <= p.logprobs <= min(MOST_REPORTED, self._vocab)))
        )

    def _words(self, o: RowOpen, cut: bool, count: int, bias: int) -> np.ndarray:
        p = o.sampling
        numbers = [p.top_p, p.min_p] if cut else [1.0, 0.0]
        numbers += [p.presence_penalty, p.frequency_penalty, p.repetition_penalty]
        top_k = min(p.top_k, self._vocab) if cut else 0
        return np.concatenate(
            ([max(0, top_k)], np.array(numbers, np.float32).view(np.int32), [count, bias])
        ).astype(np.int64)  # fmt: skip

    def _ids(self, ids: list[int] | np.ndarray) -> torch.Tensor:
        """Token ids the model has a logit for, on the device."""
        known = np.asarray(ids, np.int64)
        return self._platform.send(torch.from_numpy(known[known < self._vocab]), self._device.index or 0)

    def _add(self, o: RowOpen, line: torch.Tensor) -> None:
        p = o.sampling
        line.zero_()
        if p.logit_bias:
            values = torch.tensor(list(p.logit_bias.values()), dtype=torch.float32)
            line.index_add_(0, self._ids(list(p.logit_bias)), self._platform.send(values, self._device.index or 0))
        if p.allowed_token_ids is not None:
            hidden = torch.ones_like(line, dtype=torch.bool)
            hidden.index_fill_(0, self._ids(p.allowed_token_ids), False)
            line.masked_fill_(hidden, float("-inf"))
        runs = o.features.get("bad_words_ids") or []
        assert isinstance(runs, list)
        line.index_fill_(0, self._ids([run[0] for run in runs]), float("-inf"))

    def _count(self, o: RowOpen, line: torch.Tensor) -> None:
        ids = np.array(o.token_ids, np.int64)
        output, times = np.unique(ids[o.prompt_len :], return_counts=True)
        times = times[output < self._vocab]
        line.zero_()
        # why: half a word holds a count; more than 16,383 of one token weigh no more
        line.index_copy_(0, self._ids(output), self._platform.send(_counts(times), self._device.index or 0))
        prompt = self._ids(np.unique(ids[: o.prompt_len]))
        line.index_add_(0, prompt, torch.full_like(prompt, SEEN, dtype=torch.int16))

    def report(self, rows: list[int], logits: torch.Tensor) -> Report | None:
        """Keeps what the model said about lines that are reported, before options change it."""
        lines = [n for n, row in enumerate(rows) if row in self.reported]
        if not lines:
            return None
        return Report(lines, [self.reported[rows[n]] for n in lines], logits[lines], self._as_logits)


def _counts(times: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.minimum(times, SEEN - 1).astype(np.int16))


@dataclass(slots=True)
class Report:
    """Log-probabilities on their way."""

    lines: list[int]
    counts: list[int]
    logits: torch.Tensor | None
    as_logits: bool
    coming: list[tuple[Fetched, Fetched]] | None = None

    def start(self, tokens: torch.Tensor, one_by_one: bool) -> None:
        """The tokens [N] are chosen. `one_by_one`: a line's sums do not depend on its neighbours."""
        assert self.logits is not None
        platform, chosen = platform_of(tokens.device), tokens[self.lines]
        parts = [(self.logits, chosen, max(self.counts))]
        if one_by_one:
            parts = list(zip(self.logits.split(1), chosen.split(1), self.counts, strict=True))
        measured = [measure(x, t, most, self.as_logits) for x, t, most in parts]
        self.coming = [(platform.fetch(v), platform.fetch(i)) for v, i in measured]
        self.logits = None

    def finish(self) -> dict[int, TokenLogprobs]:
        """line -> entry; waits."""
        assert self.coming is not None
        size, found = len(self.counts) // len(self.coming), list[TokenLogprobs]()
        for n, (values, ids) in enumerate(self.coming):
            found += entries(values.wait(), ids.wait(), self.counts[n * size : (n + 1) * size])
        return dict(zip(self.lines, found, strict=True))
