"""One step of one rank: apply the plan to rows, gather a batch, run the model, sample, write tokens back.

    closes -> opens -> new_blocks -> copies -> gather -> forward -> sample -> write

Does not know: requests, what the options of sampling are, how layers work. Invariants: a plan is carried out whole; one
sequence that fails is reported and the rest goes on. Called by: executor.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.table import Kernels
from vllm.parallel.mesh import Mesh
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.protocol.step import RowOpen, StepPlan, StepResult
from vllm.sampling.lines import Lines, Sampled, Stage
from vllm.sampling.sampler import Sampler
from vllm.util.clock import SYSTEM, Clock
from vllm.worker.batch import gather
from vllm.worker.prompt_logprobs import prompt_logprobs
from vllm.worker.rows import Rows, copy_blocks


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
        extra_stages: Iterable[Stage] = (),
        clock: Clock = SYSTEM,
    ) -> None:
        self.model, self.slabs, self.mesh = model, slabs, mesh or Mesh()
        self.rows = Rows(worker_plan.max_num_seqs, worker_plan.max_model_len, kv_plan)
        mode, self._deterministic = worker_plan.logprobs_mode, worker_plan.deterministic
        self.sampler = Sampler(ops, worker_plan.max_num_seqs, mode, extra_stages, self._deterministic)
        self._device = torch.device(worker_plan.device)
        self._as_logits = worker_plan.logprobs_mode.endswith("logits")
        self._max_tokens, self._clock = worker_plan.max_num_batched_tokens, clock
        self._tokens = torch.from_numpy(self.rows.tokens)
        self._prompt_asks: dict[int, tuple[int, int, list[int] | None]] = {}

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult:
        """Carry out one plan."""
        began = self._clock.monotonic()
        self._apply(plan)
        result = StepResult(plan.step_id)
        asked = [i for i, n in enumerate(plan.num_query) if n]
        if asked:
            assert plan.num_tokens <= self._max_tokens, f"{plan.num_tokens} tokens in a step of {self._max_tokens}"
            planned = np.array([plan.rows[i] for i in asked])
            num_query = np.array([plan.num_query[i] for i in asked])
            hidden = self._forward(planned, num_query)
            self._prompt_logprobs(planned, num_query, hidden, result)
            self._sample(plan, asked, planned, num_query, hidden, result)
        result.seconds = self._clock.monotonic() - began
        return result

    def _apply(self, plan: StepPlan) -> None:
        """Changes of rows and blocks that come before the forward pass."""
        for row in plan.closes:
            self._close(row)
        for o in plan.opens:
            self._open(o)
        for row, group, ids in plan.new_blocks:
            self.rows.append_blocks(row, group, ids)
        if plan.copies:
            copy_blocks(self.slabs, plan.copies)
        for row, draft in plan.drafts.items():
            length = int(self.rows.lens[row])
            self.rows.tokens[row, length : length + len(draft)] = draft

    def _open(self, o: RowOpen) -> None:
        self.rows.open(o)
        self.sampler.open(o)
        p = o.sampling
        if p.prompt_logprobs is not None or p.prompt_logprob_token_ids is not None:
            start = max(1, p.prompt_logprob_start or 0)
            self._prompt_asks[o.row] = p.prompt_logprobs or 0, start, p.prompt_logprob_token_ids

    def _close(self, row: int) -> None:
        self.rows.close(row)
        self.sampler.close(row)
        self._prompt_asks.pop(row, None)

    @property
    def is_driver(self) -> bool:
        """This rank's results are the ones to report: they hold tokens, logprobs and prompt logprobs."""
        return self.mesh.pp.is_last and self.mesh.tp.is_first

    def _forward(self, planned: np.ndarray, num_query: np.ndarray) -> torch.Tensor:
        """Hidden states [T, E] of the step on the last pipeline stage; what was sent on, on others."""
        batch, pp = gather(self.rows, planned, num_query, self._device), self.mesh.pp
        before = None
        if not pp.is_first:
            shape = (batch.num_tokens, self.model.hidden_size)
            before = pp.receive(torch.empty(shape, dtype=self.model.dtype, device=self._device), pp.rank - 1)
        hidden = self.model(batch, before)
        if not pp.is_last:
            pp.send(hidden, pp.rank + 1)
        return hidden

    def _sample(
        self,
        plan: StepPlan,
        asked: list[int],
        planned: np.ndarray,
        num_query: np.ndarray,
        hidden: torch.Tensor,
        result: StepResult,
    ) -> None:
        """Choose tokens for the lines of the step, write them into rows and into the result."""
        rows, ends = self.rows, np.cumsum(num_query)
        lines, where, counts = Lines([], [], self._tokens), [], []
        """lines: the sampled ones; where: their rows of `hidden`; counts: (row, its number of lines)."""
        line_of_row: dict[int, int] = {}
        computed = rows.computed[planned] + num_query
        for i, row, end, known in zip(asked, planned.tolist(), ends.tolist(), computed.tolist(), strict=True):
            if not plan.samples[i]:
                continue
            num = 1 + len(plan.drafts[row]) if row in plan.drafts else 1
            line_of_row[row] = end - 1
            counts.append((row, num))
            lines.rows.extend([row] * num)
            lines.lens.extend(range(known - num + 1, known + 1))
            where.extend(range(end - num, end))
        rows.computed[planned] = computed
        for row, parent in plan.fan_out:
            counts.append((row, 1))
            lines.rows.append(row)
            lines.lens.append(int(rows.lens[row]))
            where.append(line_of_row[parent])
            rows.computed[row] = rows.lens[row]
        if not where:
            return
        self._write(counts, self._choose(lines, where, hidden), result)

    def _choose(self, lines: Lines, where: list[int], hidden: torch.Tensor) -> Sampled:
        """Tokens of the lines; the last pipeline stage chooses and tells the others (-1: the line failed)."""
        pp = self.mesh.pp
        if not pp.is_last:
            tokens = torch.empty(len(where), dtype=torch.int64, device=self._device)
            pp.broadcast(tokens, pp.size - 1)
            failed = {n: "" for n, token in enumerate(tokens.tolist()) if token < 0}
            return Sampled(tokens, failed=failed)
        logits = self.model.logits(hidden[torch.tensor(where, device=hidden.device)])
        sampled = self.sampler.sample(logits, lines)
        if pp.size > 1:
            told = sampled.tokens.clone()
            told[list(sampled.failed)] = -1
            pp.broadcast(told, pp.rank)
        return sampled

    def _write(self, counts: list[tuple[int, int]], sampled: Sampled, result: StepResult) -> None:
        """Keep the tokens that hold: one per line, up to the first draft that was not what the target says."""
        rows, tokens, line = self.rows, sampled.tokens.tolist(), 0
        for row, num in counts:
            epoch, seq_id = rows.epochs[row], rows.seq_ids[row]
            why = next((sampled.failed[n] for n in range(line, line + num) if n in sampled.failed), None)
            kept: list[int] = []
            if why is not None:
                result.failed.append((seq_id, epoch, why))
                rows.done[row] = rows.any_done = True
            elif not rows.done[row]:
                kept = self._accept(row, tokens[line : line + num])
            entries = [sampled.logprobs[line + j] for j in range(len(kept)) if line + j in sampled.logprobs]
            if why is None:
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
            result.prompt_logprobs[self.rows.seq_ids[row]] = prompt_logprobs(
                lines, first, follow, self.model.logits, num, self._as_logits, wanted, self._deterministic
            )
