"""What one step costs on the host: plan, settle and the engine's loop, with 512 decoding sequences and no device.

    python -m benchmarks.scheduler_step [--seqs 512] [--steps 400] [--run-ahead 1] [--block-size 16]

Prints medians and 99th percentiles in milliseconds. The executor answers at once with one token for every row, so all
that is measured is ours; times are CPU time of the thread, so that a busy machine does not show. The yardstick:
planning one step <= 0.5 ms at 512 decodes.
"""

import argparse
import gc
import statistics
import time
from collections import deque

from vllm.engine import core
from vllm.engine.core import Engine
from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling_params import SamplingParams


class Echo:
    """An executor that answers every sampled row with token 7, as a worker would, without any work."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[int, int]] = {}
        self._plans: deque[StepPlan] = deque()
        self.ids: list[int] = []
        self.epochs: list[int] = []

    def submit(self, plan: StepPlan) -> None:
        for opened in plan.opens:
            self._rows[opened.row] = (opened.seq_id, opened.epoch)
        self._plans.append(plan)

    def collect(self) -> StepResult:
        plan = self._plans.popleft()
        rows = [self._rows[row] for row, samples in zip(plan.rows, plan.samples, strict=True) if samples]
        return StepResult(plan.step_id, [r[0] for r in rows], [r[1] for r in rows], [[7] for _ in rows])

    def close(self) -> None:
        self._rows.clear()


class Timed:
    """Adds up the time spent in a function."""

    def __init__(self, function) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args):
        start = time.thread_time()
        try:
            return self.function(*args)
        finally:
            self.seconds += time.thread_time() - start


def measure(num_seqs: int, num_steps: int, run_ahead: int, block_size: int) -> dict[str, list[float]]:
    """Milliseconds per step of `plan`, `settle`, and everything but the executor's own work."""
    max_len = 64 + num_steps + 40
    kv_plan = make_kv_plan(
        [FullKV(8, 128, 128)] * 4,
        "bfloat16",
        num_blocks=num_seqs * (max_len // block_size + 2) + 1,
        block_size=block_size,
    )
    limits = SchedulerPlan(num_seqs, max(8192, num_seqs), max_len, run_ahead=run_ahead)
    executor = Echo()
    engine = Engine(limits, kv_plan, executor)
    for i in range(num_seqs):
        prompt = tuple((i * 31 + j) % 1000 for j in range(16 + i % 32))
        params = SamplingParams(max_tokens=None, ignore_eos=True)
        engine.add(Request(f"r{i}", (TokenSpan(prompt),), params, (i,), max_len, frozenset({5})))
    plan, settle = Timed(engine.scheduler.plan), Timed(core.settle)
    collect, submit = Timed(executor.collect), Timed(executor.submit)
    engine.scheduler.plan, core.settle = plan, settle  # type: ignore[method-assign, assignment]
    executor.collect, executor.submit = collect, submit  # type: ignore[method-assign]
    while engine.num_waiting or engine.scheduler.prefilling:
        engine.step()
    gc.collect()
    gc.freeze()
    times: dict[str, list[float]] = {"plan": [], "settle": [], "engine step": []}
    for _ in range(num_steps):
        plan.seconds = settle.seconds = collect.seconds = submit.seconds = 0.0
        start = time.thread_time()
        updates = engine.step()
        total = time.thread_time() - start
        assert len(updates) == num_seqs
        times["plan"].append(1e3 * plan.seconds)
        times["settle"].append(1e3 * settle.seconds)
        times["engine step"].append(1e3 * (total - collect.seconds - submit.seconds))
    core.settle = settle.function
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seqs", type=int, default=512)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--run-ahead", type=int, default=1)
    parser.add_argument("--block-size", type=int, default=16)
    args = parser.parse_args()
    times = measure(args.seqs, args.steps, args.run_ahead, args.block_size)
    print(f"{args.seqs} decodes, run-ahead {args.run_ahead}, block size {args.block_size}, {args.steps} steps")
    for name, values in times.items():
        p99 = statistics.quantiles(values, n=100)[98]
        median, best = statistics.median(values), min(values)
        print(f"  {name:12} median {median:6.3f} ms   p99 {p99:6.3f} ms   best {best:6.3f} ms")


if __name__ == "__main__":
    main()
