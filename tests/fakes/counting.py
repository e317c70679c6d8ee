"""An engine process without torch that is as fast as can be: each sequence counts on from its position.

`max_num_seqs` of its arguments is kept. In the environment: FAKE_STEP_S is how long a step takes, FAKE_BUSY_S how long
the first step computes.
"""

import os
import sys
import time
from collections import deque

from vllm.engine.core import Engine
from vllm.engine.wire import Ready
from vllm.entrypoints.engine_main import Fragile, longest, main
from vllm.entrypoints.errands import Errands
from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.step import StepPlan, StepResult

VOCAB = 6144
MAX_LEN = 4096
FIRST, SPAN = 1000, 200
"""Tokens are FIRST + position % SPAN: plain words of the built-in model's tokenizer."""


class CountingExecutor:
    """The token at position p is FIRST + p % SPAN."""

    def __init__(self, step_s: float = 0.0, busy_s: float = 0.0) -> None:
        self.step_s, self.busy_s = step_s, busy_s
        self.rows: dict[int, list[int]] = {}
        """Row -> sequence, epoch, length."""
        self.results: deque[StepResult] = deque()

    def submit(self, plan: StepPlan) -> None:
        for row in plan.closes:
            del self.rows[row]
        for o in plan.opens:
            self.rows[o.row] = [o.seq_id, o.epoch, len(o.token_ids)]
        result = StepResult(plan.step_id)
        chosen = [row for row, samples in zip(plan.rows, plan.samples, strict=True) if samples]
        for row in chosen + [row for row, _ in plan.fan_out]:
            state = self.rows[row]
            result.seq_ids.append(state[0])
            result.epochs.append(state[1])
            result.tokens.append([FIRST + state[2] % SPAN])
            state[2] += 1
        end, self.busy_s = time.monotonic() + self.busy_s, 0.0
        while time.monotonic() < end:
            pass
        if self.step_s:
            time.sleep(self.step_s)
        self.results.append(result)

    def collect(self) -> StepResult:
        return self.results.popleft()

    def prepare(self) -> None:
        return None

    def close(self) -> None:
        self.rows.clear()


def build(words: dict[str, object]) -> tuple[Engine, Ready, Errands]:
    """A fake engine."""
    rows = words.get("max_num_seqs") or 1024
    assert isinstance(rows, int)
    kv = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=40_000, block_size=16, usual_len=512)
    limits = SchedulerPlan(rows, 8192, MAX_LEN, run_ahead=1, policy=str(words.get("scheduling_policy") or "fcfs"))
    times = (float(os.environ.get(name, "0")) for name in ("FAKE_STEP_S", "FAKE_BUSY_S"))
    engine = Engine(limits, kv, Fragile(CountingExecutor(*times)))
    assert "torch" not in sys.modules
    return engine, Ready(MAX_LEN, longest(engine), VOCAB, 20, kv.num_blocks, 16, "a fake that counts"), Errands()


if __name__ == "__main__":
    main(build)
