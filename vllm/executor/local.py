"""The executor in this process: a plan is one call, its result is there when `submit` returns.

Called by: assembly, for one device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch

from vllm.parts.decoder import Decoder
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling.lines import Stage
from vllm.worker.make import make_runner
from vllm.worker.runner import Runner


class LocalExecutor:
    """Runs plans on a runner of its own."""

    def __init__(
        self,
        decoder: Decoder,
        weights: dict[str, torch.Tensor],
        worker_plan: WorkerPlan,
        kv_plan: KVPlan,
        extra_stages: Iterable[Stage] = (),
    ) -> None:
        """`weights` are the model's tensors by name, on the plan's device and in its dtype; the dict is emptied."""
        made = make_runner(decoder, weights, worker_plan, kv_plan, extra_stages=extra_stages)
        self._runner: Runner | None = made
        self._results: deque[StepResult] = deque()

    @property
    def runner(self) -> Runner:
        """The runner, for tests and tools."""
        assert self._runner is not None, "the executor is closed"
        return self._runner

    def submit(self, plan: StepPlan) -> None:
        """Carry out the plan now."""
        self._results.append(self.runner.step(plan))

    def collect(self) -> StepResult:
        """Result of the oldest plan not yet collected."""
        return self._results.popleft()

    def close(self) -> None:
        """Let go of the model and its cache."""
        self._runner = None
        self._results.clear()
