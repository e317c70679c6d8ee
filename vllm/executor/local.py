"""The executor in this process: a plan is one call. Whether its result is there at once is the runner's business.

Called by: assembly, for one device.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.loading.loader import load_weights
from vllm.parts.checkpoint import Weights
from vllm.parts.decoder import Decoder
from vllm.parts.foreign import Foreign
from vllm.platforms.base import platform_of
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import LoadPlan, WorkerPlan
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling.lines import Head, Stage
from vllm.worker.make import make_foreign_runner, make_runner
from vllm.worker.rehearsal import rehearse
from vllm.worker.runner import Runner


class LocalExecutor:
    """Runs plans on a runner of its own."""

    def __init__(
        self,
        network: Decoder | Foreign,
        weights: Weights,
        worker_plan: WorkerPlan,
        kv_plan: KVPlan,
        load_plan: LoadPlan,
        extra_stages: Iterable[Stage | Head] = (),
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the weights and build the model. `given`: tensors in place of some of the checkpoint's.

        Raises ModelLoadError for a checkpoint that does not fit.
        """
        if isinstance(network, Foreign):
            self._start(make_foreign_runner(network, load_plan, worker_plan, kv_plan, extra_stages))
            return
        rehearse(network, worker_plan, kv_plan)
        tensors = load_weights(network, weights, load_plan, worker_plan, given)
        self._start(make_runner(network, tensors, worker_plan, kv_plan, extra_stages=extra_stages))

    @classmethod
    def of(cls, runner: Runner) -> LocalExecutor:
        """An executor for a runner made elsewhere (tests, tools)."""
        made = object.__new__(cls)
        made._start(runner)
        return made

    def _start(self, runner: Runner) -> None:
        self._runner: Runner | None = runner

    @property
    def runner(self) -> Runner:
        """The runner, for tests and tools."""
        assert self._runner is not None, "the executor is closed"
        return self._runner

    def submit(self, plan: StepPlan) -> None:
        """Give the plan to the device."""
        self.runner.submit(plan)

    def collect(self) -> StepResult:
        """Result of the oldest plan not yet collected."""
        return self.runner.collect()

    def prepare(self) -> tuple[int, float] | None:
        """See `protocol.executor`."""
        return self.runner.prepare()

    def close(self) -> None:
        """Let go of the model and its cache, and of their memory."""
        if self._runner is not None:
            device = self._runner.device
            self._runner.close()
            self._runner = None
            # why: graphs and what they read name each other; until both are gone the device has nothing back
            gc.collect()
            platform_of(device).release(device.index or 0)
