"""A runner that gives steps to the device and looks at their tokens later, so that one may be given while one runs.

    submit   changes ─▶ one token per row: Decodes over resident rows      ┐
                     ─▶ a few chunks beside decodes: Mixed                 │
                     ─▶ anything else: a gathered batch                    ├─▶ tokens on their way ─▶ flight
                        `pick`, `pick_any`, or the sampler on the host     ┘   (options.py says which)
    collect  waits for the oldest flight

The host knows every length ahead of time and no token: where a row's newest token is still on the device, the table of
tokens holds -1. A row that has ended is found out by the host; what a step given before that writes goes to blocks that
the row keeps until the step is over. Over several ranks each holds all logits, the same to the bit, and chooses for
itself; what is done never depends on time, so their collectives meet. Invariants: no drafts, one stage. Called by:
executor.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.rows import FORBIDDEN
from vllm.ops.table import Kernels
from vllm.parallel.mesh import Mesh
from vllm.platforms.base import Fetched, platform_of
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.protocol.sizes import DECODES
from vllm.protocol.step import RowOpen, StepPlan, StepResult, TokenLogprobs
from vllm.sampling.lines import Head, Lines, Stage
from vllm.sampling.sampler import NO_TOKEN, NOTHING_LEFT
from vllm.sampling.stages.min_tokens import held_ids
from vllm.util.arith import cdiv
from vllm.worker.batch import gather, idle_batch, send_all
from vllm.worker.board import Watch
from vllm.worker.graphs import BUCKETS, Decodes, End
from vllm.worker.mixed import CHUNKS, Mixed
from vllm.worker.options import Report
from vllm.worker.resident import Resident
from vllm.worker.runner import Runner

_EMPTY = np.zeros(0, np.int64)
_UNKNOWN = -1
_MANY, _MOST = 2048, 8192
"""Tokens of steps that are tried while nobody asks, where the limits allow so many; kernels change at 8,192."""


@dataclass(slots=True)
class Flight:
    """A step that was given to the device. Parallel arrays over the rows that sample."""

    result: StepResult
    began: float
    rows: np.ndarray = field(default_factory=lambda: _EMPTY)
    lens: np.ndarray = field(default_factory=lambda: _EMPTY)
    """Position of the token that is chosen."""
    seq_ids: np.ndarray = field(default_factory=lambda: _EMPTY)
    epochs: np.ndarray = field(default_factory=lambda: _EMPTY)
    coming: Fetched | None = None
    watch: Watch | None = None
    """Where the device also tells the tokens."""
    tokens: np.ndarray | None = None
    report: Report | None = None
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    over: list[int] = field(default_factory=list)
    """Of `rows`, those whose options failed when they were opened."""


class AheadRunner(Runner):
    """See the module."""

    def __init__(
        self,
        model: Model,
        slabs: list[torch.Tensor],
        ops: Kernels,
        worker_plan: WorkerPlan,
        kv_plan: KVPlan,
        extra_stages: Iterable[Stage | Head] = (),
        record: bool = True,
        mesh: Mesh | None = None,
    ) -> None:
        """`record`: decode steps and those with a few chunks of prompts beside them become graphs."""
        super().__init__(model, slabs, ops, worker_plan, kv_plan, mesh, extra_stages)
        with torch.inference_mode():
            mode = worker_plan.logprobs_mode
            self._resident = Resident(self.rows, self._device, BUCKETS[-1], model.vocab, mode)
            max_len = worker_plan.max_model_len
            self._decodes = Decodes(model, ops, self._resident, self._device, max_len, record)
        with torch.inference_mode():
            self._mixed = Mixed(model, self.rows, self._resident, self._device, max_len) if record else None
        self._unprepared = self._sizes()
        self._ops, self._platform = ops, platform_of(self._device)
        self._options = self._resident.options
        self._flights: deque[Flight] = deque()
        self.held: object = None
        """What keeps the memory that graphs are made in."""
        self._free_at = 0.0
        """When the device was last seen to end a step; inf while it may be busy with one that was not waited for."""

    def step(self, plan: StepPlan) -> StepResult:
        """One plan, and wait for it."""
        self.submit(plan)
        return self.collect()

    @torch.inference_mode()
    def submit(self, plan: StepPlan) -> None:
        """Give one plan to the device."""
        assert not plan.drafts, "drafts are verified by a runner that waits"
        flight = Flight(StepResult(plan.step_id), self._clock.monotonic())
        self._apply(plan, flight.result)
        if plan.rows:
            assert plan.num_tokens <= self._max_tokens, f"{plan.num_tokens} tokens in a step of {self._max_tokens}"
            planned, num_query = np.array(plan.rows), np.array(plan.num_query)
            is_decode = all(plan.samples) and not plan.fan_out and int(num_query.max()) == 1
            is_decode = is_decode and not (self._asks_prompt(planned) or self._heads.reads(planned))
            bucket = self._decodes.bucket(len(planned)) if is_decode else None
            if bucket is None:
                self._any_step(plan, planned, num_query, flight)
            else:
                self._decode_step(planned, bucket, flight)
        self._flights.append(flight)

    def collect(self) -> StepResult:
        """Wait for the oldest step."""
        flight = self._flights.popleft()  # why: also a step that failed is over
        self._land(flight)
        seconds = self._seconds(flight)
        out = flight.result
        out.seq_ids, out.epochs = flight.seq_ids.tolist(), flight.epochs.tolist()
        if flight.tokens is not None:
            out.tokens = [[token] for token in flight.tokens.tolist()]
        out.logprobs = {n: [entry] for n, entry in flight.logprobs.items()}
        for n, why in flight.failed.items():
            out.failed.append((out.seq_ids[n], out.epochs[n], why))
        for n in (*flight.failed, *flight.over):
            out.tokens[n] = []
        out.seconds = seconds
        return out

    @torch.inference_mode()
    def prepare(self) -> tuple[int, float] | None:
        """See `Runner`: record the next size of step."""
        assert not self._flights, "there are steps to wait for"
        for num_tokens, record in self._unprepared:
            seconds = record()
            if seconds is not None:
                return num_tokens, seconds
        return None

    def _sizes(self) -> Iterator[tuple[int, Callable[[], float | None]]]:
        """(tokens, how it is recorded) of all steps that may be, those first that are needed first."""
        if self._mixed is None:
            return
        buckets, mixed = self._decodes.buckets, self._mixed.sizes
        many = min(_MANY, self._max_tokens, self.rows.max_model_len)
        for decodes in (0, 3):
            if many > decodes:
                yield many, partial(self._launch, np.array([1] * decodes + [many - decodes]))
        for low, most in pairwise((0, *DECODES, BUCKETS[-1])):
            for bucket in buckets:
                if low < bucket <= most:
                    yield bucket, partial(self._prepare_decodes, bucket)
            for lines, total in mixed:
                if lines == most:
                    yield total, partial(self._mixed.prepare, lines, total)
            if low == 0:
                prompts = min(_MOST, self._max_tokens)
                chunks = cdiv(prompts, self.rows.max_model_len)
                yield prompts, partial(self._launch, np.full(chunks, prompts // chunks))
        if self.rows.max_rows > CHUNKS:  # more chunks than a recorded step has, of few tokens in all
            yield 2 * (CHUNKS + 1), partial(self._launch, np.full(CHUNKS + 1, 2))

    def _launch(self, num_query: np.ndarray) -> float:
        """A step of idle tokens that is not recorded: which compiles kernels for many. Its time means little."""
        (only,) = send_all([np.zeros(self._together, np.int64)], self._device)
        self.model(idle_batch(self.rows, num_query, self._device), only=only)
        self._platform.synchronize(self._device.index or 0)
        return 0.0

    def _prepare_decodes(self, bucket: int) -> float | None:
        idle, ones = np.full(bucket, self._resident.idle), np.ones(bucket, np.int64)
        hidden = torch.zeros(bucket, self.model.hidden_size, dtype=self.model.dtype, device=self._device)
        self._choose_now(self.model.logits(hidden, wide=False), idle, ones, Flight(StepResult(-1), 0.0))
        return self._decodes.prepare(bucket)

    def _seconds(self, flight: Flight) -> float:
        """How long the device was busy with a step that has landed; 0.0 where nobody saw it begin or end."""
        began, now = max(flight.began, self._free_at), self._clock.monotonic()
        # why: a step without tokens is not waited for, so the next one's time holds a part of this one's
        self._free_at = now if flight.tokens is not None else math.inf
        return max(0.0, now - began) if flight.tokens is not None else 0.0

    # -- changes -------------------------------------------------------------------------------------------------

    def _open(self, o: RowOpen, result: StepResult) -> None:
        super()._open(o, result)
        words = self._options.open(o, self.sampler.stages_of(o.row))
        self._resident.open(o, held_ids(o)[:FORBIDDEN], words)
        for group, ids in enumerate(o.block_ids):
            self._resident.blocks(o.row, group, 0, ids)

    def _close(self, row: int) -> None:
        super()._close(row)
        self._options.close(row)

    def _append_blocks(self, row: int, group: int, ids: list[int]) -> None:
        self._resident.blocks(row, group, self.rows.table_lens[group][row], ids)
        super()._append_blocks(row, group, ids)

    # -- steps ---------------------------------------------------------------------------------------------------

    def _decode_step(self, planned: np.ndarray, bucket: int, flight: Flight) -> None:
        """One token for each row, from what is on the device."""
        # why: who reads most begins first, so that no long one is left for the end
        planned = planned[np.argsort(-self.rows.computed[planned], kind="stable")]
        self._resident.name(planned, bucket)
        self._resident.flush()
        lens = self.rows.computed[planned] + 1
        rows, o = planned.tolist(), self._options
        if not (o.hosted.isdisjoint(rows) and o.reported.keys().isdisjoint(rows)):
            end = End.LOGITS
        else:
            end = End.PICK if o.asking.isdisjoint(rows) else End.PICK_ANY
        out = self._decodes.run(bucket, end, lens.tolist())[: len(planned)]
        self.rows.computed[planned] = lens
        if end is End.PICK and self._decodes.board is not None:
            flight.watch = self._decodes.board.watch(planned, lens)
        if end is End.LOGITS:
            out = self._choose_now(out, planned, lens, flight, bucket if self._decodes.has_second else 0)
        self._fly(flight, planned, lens, out)

    def _choose_now(
        self, logits: torch.Tensor, rows: np.ndarray, lens: np.ndarray, flight: Flight, bucket: int = 0
    ) -> torch.Tensor:
        """Tokens from logits that no recorded step has chosen from, by the device where it can; with `bucket` by the
        second piece of the decode step that made them."""
        named, o = rows.tolist(), self._options
        hosted = [n for n, row in enumerate(named) if row in o.hosted]
        if hosted:
            (at,) = send_all([np.array(hosted)], self._device)
            untouched = logits[at].float()  # why: what the device does with these lines means nothing
        flight.report, is_plain = o.report(named, logits), o.asking.isdisjoint(named)
        if bucket:
            end = End.THEN_PICK if is_plain else End.THEN_PICK_ANY
            tokens = self._decodes.run(bucket, end)[: len(rows)]
        else:
            these, upto = send_all([rows.astype(np.int32), lens.astype(np.int32)], self._device)
            pick = self._ops.pick if is_plain else self._ops.pick_any
            tokens = pick(logits, these, upto, self._resident.state)
        if flight.report is not None:
            flight.report.start(tokens, self._deterministic)
        if hosted:
            self._sample_here(untouched, rows, lens, hosted, at, tokens, flight)
        return tokens

    def _any_step(self, plan: StepPlan, planned: np.ndarray, num_query: np.ndarray, flight: Flight) -> None:
        """Any number of tokens for each row, from a batch that the host gathers."""
        self._resident.flush()
        size, hidden = None if self._mixed is None else self._mixed.size(num_query), None
        if self._mixed is not None and size is not None:
            hidden = self._mixed.run(size, planned, num_query, lambda ids: self._fill_unknown(ids, planned, num_query))
        if hidden is None:
            batch = gather(self.rows, planned, num_query, self._device)
            self._fill_unknown(batch.token_ids, planned, num_query)

        def run(only: torch.Tensor | None) -> torch.Tensor:
            if hidden is None:
                return self.model(batch, only=only)
            return hidden if only is None else hidden[only]

        picked, states = self._lines(plan, planned, num_query, run, flight.result)
        if not picked.rows:
            return
        rows, lens, o = np.array(picked.rows), np.array(picked.lens), self._options
        plain = all(them.isdisjoint(picked.rows) for them in (o.hosted, o.asking, o.reported.keys()))
        # why: kernels are compiled for the numbers of lines that recorded steps have
        idle = (self._decodes.bucket(len(rows)) or len(rows)) - len(rows) if plain else 0
        named, upto = _with(rows, self._resident.idle, idle), _with(lens, 1, idle)
        if idle:
            states = states[send_all([_with(np.arange(len(rows)), 0, idle)], self._device)[0]]
        logits = self.model.logits(states, wide=not plain)
        self._fly(flight, rows, lens, self._choose_now(logits, named, upto, flight)[: len(rows)])

    def _fill_unknown(self, token_ids: torch.Tensor, planned: np.ndarray, num_query: np.ndarray) -> None:
        """Tokens that only the device knows; each is the only one of its row."""
        newest = self.rows.tokens[planned, self.rows.computed[planned]]
        alone = np.flatnonzero((num_query == 1) & (newest == _UNKNOWN))
        if alone.size:
            at = (np.cumsum(num_query) - num_query)[alone]
            there, who = send_all([at, planned[alone]], self._device)
            token_ids.index_copy_(0, there, self._resident.state.last[who].long())

    def _sample_here(
        self,
        logits: torch.Tensor,
        rows: np.ndarray,
        lens: np.ndarray,
        hosted: list[int],
        at: torch.Tensor,
        tokens: torch.Tensor,
        flight: Flight,
    ) -> None:
        """Tokens of lines `hosted` from the host's sampler, which must know all tokens before them, in place of the
        device's. The other lines are not touched: they wait no longer than this takes."""
        for earlier in self._flights:
            self._land(earlier)
        lines = Lines(rows[hosted].tolist(), lens[hosted].tolist(), self._tokens)
        sampled = self.sampler.sample(logits, lines, waits=False)
        flight.logprobs = {hosted[n]: entry for n, entry in sampled.logprobs.items()}
        flight.failed = {hosted[n]: why for n, why in sampled.failed.items()}
        (these,) = send_all([rows[hosted]], self._device)
        self._resident.state.last.index_copy_(0, these, sampled.tokens.clamp(min=0).to(torch.int32))
        tokens.index_copy_(0, at, sampled.tokens.to(tokens.dtype))

    def _fly(self, flight: Flight, rows: np.ndarray, lens: np.ndarray, tokens: torch.Tensor) -> None:
        """The tokens are on their way; `rows` take part in the next step without them."""
        flight.rows, flight.lens = rows, lens
        flight.seq_ids, flight.epochs = self.rows.seq_ids[rows], self.rows.epochs[rows]
        if self.rows.any_done:
            flight.over = np.flatnonzero(self.rows.done[rows]).tolist()
        safe = flight.watch is not None and not self._changed_hands(rows)
        flight.coming = flight.watch if safe else self._platform.fetch(tokens)
        self._resident.sampled(rows, lens)
        self.rows.tokens[rows, lens] = _UNKNOWN
        self.rows.lens[rows] = lens + 1

    def _changed_hands(self, rows: np.ndarray) -> bool:
        """Some of `rows` belonged to others in a step whose tokens are still coming."""
        known = self.rows
        for f in self._flights:
            other = (known.seq_ids[f.rows] != f.seq_ids) | (known.epochs[f.rows] != f.epochs)
            if other.any() and np.isin(f.rows[other], rows).any():
                return True
        return False

    def _land(self, flight: Flight) -> None:
        """Wait for a flight's tokens and write them down for rows that still are who they were."""
        if flight.coming is None:
            return
        flight.tokens, flight.coming = flight.coming.wait().numpy(), None
        if flight.watch is not None:
            flight.watch.clear()
        if flight.report is not None:
            flight.logprobs |= flight.report.finish()
        rows, known = flight.rows, self.rows
        for n in np.flatnonzero(flight.tokens == NO_TOKEN).tolist():
            flight.failed.setdefault(n, NOTHING_LEFT)
        same = (known.seq_ids[rows] == flight.seq_ids) & (known.epochs[rows] == flight.epochs)
        known.tokens[rows[same], flight.lens[same]] = flight.tokens[same]


def _with(x: np.ndarray, value: int, times: int) -> np.ndarray:
    return np.concatenate((x, np.full(times, value, x.dtype)))
