"""One step of one rank: apply the plan to rows, gather a batch, run the model, sample, write tokens back.

    closes -> opens -> new_blocks -> copies -> gather -> forward -> sample -> write

Does not know: requests, what the options of sampling are, how layers work. Invariants: a plan is carried out whole; one
sequence that fails is reported and the rest goes on. Called by: executor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.batch import Batch
from vllm.ops.table import Kernels
from vllm.parallel.mesh import Mesh
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.protocol.step import RowOpen, StepPlan, StepResult
from vllm.sampling.lines import Head, Lines, Sampled, Stage
from vllm.sampling.sampler import Sampler
from vllm.util.clock import SYSTEM, Clock
from vllm.worker.batch import gather, send_all
from vllm.worker.heads import Heads
from vllm.worker.picked import Picked, some_of
from vllm.worker.prompt_logprobs import positions_at_once, prompt_logprobs
from vllm.worker.rows import Rows, copy_blocks
from vllm.worker.tapes import Tapes


class Runner:
    """A rank's model, cache and rows."""

    def __init__(
        self,
        model: Model,
        slabs: list[torch.Tensor],
        ops: Kernels,
        worker_plan: WorkerPlan,
        kv_plan: KVPlan,
        mesh: Mesh | None = None,
        extra_stages: Iterable[Stage | Head] = (),
        clock: Clock = SYSTEM,
        tapes: Tapes | None = None,
    ) -> None:
        """`tapes`: steps of one token for each of a few rows are recorded there."""
        self.model, self.slabs, self.mesh = model, slabs, mesh or Mesh()
        self.rows = Rows(worker_plan.max_num_seqs, worker_plan.max_model_len, kv_plan)
        mode, self._deterministic = worker_plan.logprobs_mode, worker_plan.deterministic
        extra = list(extra_stages)
        stages = [one for one in extra if not isinstance(one, Head)]
        self.sampler = Sampler(ops, worker_plan.max_num_seqs, mode, stages, self._deterministic)
        self._heads = Heads(one for one in extra if isinstance(one, Head))
        self._device = torch.device(worker_plan.device)
        self._as_logits = worker_plan.logprobs_mode.endswith("logits")
        self._max_tokens, self._clock = worker_plan.max_num_batched_tokens, clock
        self._slice = positions_at_once(self._device, min(worker_plan.max_num_seqs, self._max_tokens))
        self._tokens = torch.from_numpy(self.rows.tokens)
        self._prompt_asks: dict[int, tuple[int, int, list[int] | None]] = {}
        self._results: deque[StepResult] = deque()
        self._tapes = tapes
        # why: a device's kernels are made for numbers of rows, and for many rows they are all the same
        self._together = 1 if self._device.type == "cpu" else 256

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._device

    def close(self) -> None:
        """Let go of everything, whoever still holds the runner; it is of no use any more."""
        vars(self).clear()

    def submit(self, plan: StepPlan) -> None:
        """Carry out one plan; `collect` gives its result."""
        self._results.append(self.step(plan))

    def collect(self) -> StepResult:
        """Result of the oldest plan not yet collected."""
        return self._results.popleft()

    def prepare(self) -> tuple[int, float] | None:
        """With no step in flight: make one size of step ready, and say how long (tokens, seconds) one takes. None when
        there is nothing left to make ready."""
        return None

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult:
        """Carry out one plan."""
        began = self._clock.monotonic()
        result = StepResult(plan.step_id)
        self._apply(plan, result)
        if plan.rows:
            assert all(plan.num_query), "every planned row has at least one token"
            assert plan.num_tokens <= self._max_tokens, f"{plan.num_tokens} tokens in a step of {self._max_tokens}"
            planned, num_query = np.array(plan.rows), np.array(plan.num_query)
            if self._tapes is not None and self._is_decode(plan, planned):
                logits = self._tapes.logits(self.rows, planned)
                self._sample(self._picked(plan, planned, num_query), logits, result, is_logits=True)
            else:
                batch = gather(self.rows, planned, num_query, self._device)
                picked, states = self._lines(plan, planned, num_query, lambda only: self._forward(batch, only), result)
                self._sample(picked, states, result)
        result.seconds = self._clock.monotonic() - began
        return result

    def _apply(self, plan: StepPlan, result: StepResult) -> None:
        """Changes of rows and blocks that come before the forward pass."""
        for row in plan.closes:
            self._close(row)
        for o in plan.opens:
            self._open(o, result)
        for row, group, ids in plan.new_blocks:
            self._append_blocks(row, group, ids)
        if plan.copies:
            copy_blocks(self.slabs, plan.copies)
        for row, draft in plan.drafts.items():
            length = int(self.rows.lens[row])
            self.rows.tokens[row, length : length + len(draft)] = draft

    def _append_blocks(self, row: int, group: int, ids: list[int]) -> None:
        self.rows.append_blocks(row, group, ids)

    def _open(self, o: RowOpen, result: StepResult) -> None:
        self.rows.open(o)
        self._close_options(o.row)
        try:
            self.sampler.open(o)
            self._heads.open(o)
        except Exception as error:  # why: one request's options must not end the step of all others
            result.failed.append((o.seq_id, o.epoch, f"its options failed with {type(error).__name__}: {error}"))
            self._close_options(o.row)
            self.rows.done[o.row] = self.rows.any_done = True
            return
        p = o.sampling
        if p.prompt_logprobs is not None or p.prompt_logprob_token_ids is not None:
            start = max(1, p.prompt_logprob_start or 0)
            self._prompt_asks[o.row] = p.prompt_logprobs or 0, start, p.prompt_logprob_token_ids

    def _close(self, row: int) -> None:
        self.rows.close(row)
        self._close_options(row)

    def _close_options(self, row: int) -> None:
        self.sampler.close(row)
        self._heads.close(row)
        self._prompt_asks.pop(row, None)

    @property
    def is_driver(self) -> bool:
        """This rank's results are the ones to report: they hold tokens, logprobs and prompt logprobs."""
        return self.mesh.pp.is_last and self.mesh.tp.is_first

    def _lines(
        self,
        plan: StepPlan,
        planned: np.ndarray,
        num_query: np.ndarray,
        run: Callable[[torch.Tensor | None], torch.Tensor],
        result: StepResult,
    ) -> tuple[Picked, torch.Tensor]:
        """Who samples, and the states of their lines on the last pipeline stage. `run` gives the states of the step's
        tokens, or of those it is told: what nobody reads is not made behind the last layer's keys.
        """
        if self._asks_prompt(planned) or self._heads.reads(planned):
            hidden = run(None)
            self._show(planned, num_query, hidden, result)
            picked = self._picked(plan, planned, num_query)
        else:
            picked = self._picked(plan, planned, num_query)
            some = some_of(picked.where(), int(num_query.sum()), self._together)
            if some is not None and self.mesh.pp.is_last:
                return picked, run(send_all([some], self._device)[0])[: len(picked.where())]
            hidden = run(None)
        if not self.mesh.pp.is_last:
            return picked, hidden
        # why: a tensor made from an array costs a tenth of one made from a list
        return picked, hidden[send_all([np.array(picked.where(), np.int64)], self._device)[0]]

    def _forward(self, batch: Batch, only: torch.Tensor | None) -> torch.Tensor:
        """Hidden states of the step, or of `only` these tokens, on the last pipeline stage; elsewhere what was sent."""
        pp = self.mesh.pp
        before = None
        if not pp.is_first:
            shape = (batch.num_tokens, self.model.hidden_size)
            before = pp.receive(torch.empty(shape, dtype=self.model.dtype, device=self._device), pp.rank - 1)
        hidden = self.model(batch, before, only)
        if not pp.is_last:
            pp.send(hidden, pp.rank + 1)
        return hidden

    def _is_decode(self, plan: StepPlan, planned: np.ndarray) -> bool:
        """One token for each of few rows, each of which samples one."""
        assert self._tapes is not None
        few = len(planned) <= self._tapes.most and max(plan.num_query) == 1 and all(plan.samples)
        return few and not (plan.fan_out or plan.drafts or self._prompt_asks or self._heads.reads(planned))

    def _sample(self, picked: Picked, states: torch.Tensor, result: StepResult, is_logits: bool = False) -> None:
        """Choose tokens for the lines of the step, write them into rows and into the result.

        `states` are the hidden states of its lines, or (`is_logits`) their logits.
        """
        if picked.rows:
            lines = Lines(picked.line_rows(), picked.line_lens(), self._tokens)
            self._write(picked, self._choose(lines, states, is_logits), result)

    def _picked(self, plan: StepPlan, planned: np.ndarray, num_query: np.ndarray) -> Picked:
        """Who samples in the step; its query tokens now count as computed."""
        rows = self.rows
        known, ends = rows.computed[planned] + num_query, np.cumsum(num_query)
        sampling = np.array(plan.samples)
        rows.computed[planned] = known
        chosen, lens, last = planned[sampling], known[sampling], ends[sampling] - 1
        nums = [1 + len(plan.drafts.get(row, ())) for row in chosen.tolist()] if plan.drafts else [1] * len(chosen)
        picked = Picked(chosen.tolist(), nums, lens.tolist(), last.tolist(), not plan.drafts)
        for row, parent in plan.fan_out:
            picked.add(row, int(rows.lens[row]), picked.line_of(parent))
            rows.computed[row] = rows.lens[row]
        return picked

    def _choose(self, lines: Lines, states: torch.Tensor, is_logits: bool) -> Sampled:
        """Tokens of the lines; the last pipeline stage chooses and tells the others (-1: the line failed)."""
        pp = self.mesh.pp
        if not pp.is_last:
            tokens = torch.empty(len(lines.rows), dtype=torch.int64, device=self._device)
            pp.broadcast(tokens, pp.size - 1)
            failed = {n: "" for n, token in enumerate(tokens.tolist()) if token < 0}
            return Sampled(tokens, failed=failed)
        sampled = self.sampler.sample(states if is_logits else self.model.logits(states), lines)
        if pp.size > 1:
            told = sampled.tokens.clone()
            told[list(sampled.failed)] = -1
            pp.broadcast(told, pp.rank)
        return sampled

    def _write(self, picked: Picked, sampled: Sampled, result: StepResult) -> None:
        """Keep the tokens that hold: one per line, up to the first draft that was not what the target says."""
        rows = self.rows
        if picked.is_plain and not sampled.failed:
            chosen, tokens = np.array(picked.rows), sampled.tokens.cpu().numpy()
            result.seq_ids, result.epochs = rows.seq_ids[chosen].tolist(), rows.epochs[chosen].tolist()
            result.tokens = [[token] for token in tokens.tolist()]
            result.logprobs = {n: [entry] for n, entry in sampled.logprobs.items()}
            if rows.any_done:
                going = ~rows.done[chosen]
                for n in np.flatnonzero(~going).tolist():
                    result.tokens[n] = []
                    result.logprobs.pop(n, None)
                chosen, tokens = chosen[going], tokens[going]
            rows.add_tokens(chosen, tokens)
            return
        tokens, line = sampled.tokens.tolist(), 0
        for row, num in zip(picked.rows, picked.nums, strict=True):
            epoch, seq_id = int(rows.epochs[row]), int(rows.seq_ids[row])
            why = next((sampled.failed[n] for n in range(line, line + num) if n in sampled.failed), None)
            if why is not None:
                result.failed.append((seq_id, epoch, why))
                rows.done[row] = rows.any_done = True
            else:
                kept = [] if rows.done[row] else self._accept(row, tokens[line : line + num])
                entries = [sampled.logprobs[line + j] for j in range(len(kept)) if line + j in sampled.logprobs]
                if entries:
                    result.logprobs[len(result.seq_ids)] = entries
                result.seq_ids.append(seq_id)
                result.epochs.append(epoch)
                result.tokens.append(kept)
            line += num

    def _accept(self, row: int, tokens: list[int]) -> list[int]:
        """Write a row's tokens; drafts that the target did not choose are taken back."""
        rows, kept = self.rows, []
        drafted = len(tokens) - 1
        first = int(rows.lens[row])
        draft = rows.tokens[row, first : first + drafted].tolist()
        for j, token in enumerate(tokens):
            rows.add_token(row, token)
            kept.append(token)
            if rows.done[row] or j >= drafted or draft[j] != token:
                break
        rows.computed[row] -= len(tokens) - len(kept)
        return kept

    def _asks_prompt(self, planned: np.ndarray) -> bool:
        """Somebody wants log-probabilities of prompt tokens in this step."""
        asks, rows = self._prompt_asks, self.rows
        return bool(asks) and any(r in asks and rows.computed[r] < rows.prompt_lens[r] for r in planned.tolist())

    def _show(self, planned: np.ndarray, num_query: np.ndarray, hidden: torch.Tensor, result: StepResult) -> None:
        """The step's hidden states to all who asked for more than a token."""
        self._prompt_logprobs(planned, num_query, hidden, result)
        if self.mesh.pp.is_last:
            self._heads.read(self.rows, planned, num_query, hidden, result)

    def _prompt_logprobs(
        self, planned: np.ndarray, num_query: np.ndarray, hidden: torch.Tensor, result: StepResult
    ) -> None:
        if not self._prompt_asks or not self.mesh.pp.is_last:
            return
        end = 0
        for row, count in zip(planned.tolist(), num_query.tolist(), strict=True):
            begin, end = end, end + count
            if row not in self._prompt_asks:
                continue
            num, start, wanted = self._prompt_asks[row]
            low = int(self.rows.computed[row])
            first, last = max(low, start - 1), min(low + count, int(self.rows.prompt_lens[row]) - 1)
            if first >= last:
                continue
            follow = self._tokens[row, first + 1 : last + 1].to(hidden.device, torch.int64)
            lines = hidden[begin + first - low : begin + last - low]
            result.prompt_logprobs[int(self.rows.seq_ids[row])] = prompt_logprobs(
                *(
                    lines,
                    first,
                    follow,
                    self.model.logits,
                    num,
                    self._as_logits,
                    wanted,
                    self._deterministic,
                    self._slice,
                )
            )
