"""A long prompt does not stall those who decode: the time target, on a clock that the executor moves."""

import itertools
from dataclasses import replace

import pytest

from tests.fakes.fingerprint import FingerprintExecutor
from vllm.engine.core import Engine
from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling_params import SamplingParams
from vllm.util.clock import ManualClock

KV = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=200, block_size=16)
GUESS = SchedulerPlan(
    max_num_seqs=8,
    max_num_batched_tokens=1024,
    max_model_len=1200,
    step_seconds=0.25,
    step_base_seconds=0.02,
    step_token_seconds=0.001,
)
BASE, EACH = 0.05, 0.003
"""What a step of this machine really takes: two and three times what the Plan guessed."""


class TimedExecutor(FingerprintExecutor):
    """Fingerprints whose steps take BASE and EACH for every query token."""

    clock: ManualClock

    def run(self, plan: StepPlan) -> StepResult:
        result = super().run(plan)
        result.seconds = BASE + EACH * plan.num_tokens
        return result

    def collect(self) -> StepResult:
        result = super().collect()
        self.clock.advance(result.seconds)
        return result


def request(name: str, prompt_len: int, new: int) -> Request:
    prompt = TokenSpan(tuple((sum(name.encode()) * 31 + i * i) % 97 for i in range(prompt_len)))
    return Request(name, (prompt,), SamplingParams(max_tokens=new), (1,), prompt_len + new, frozenset())


def gaps_and_wait(limits: SchedulerPlan) -> tuple[list[float], float]:
    """(seconds between a stream's tokens while long prompts come in, seconds until the last of these answered)."""
    executor = TimedExecutor(KV, limits)
    executor.clock = clock = ManualClock()
    engine = Engine(limits, KV, executor, clock=clock)
    engine.add(request("stream", 8, 900))
    times: list[float] = []
    waits: list[float] = []
    for step in range(700):
        if step in (20, 120, 220):
            asked = clock.monotonic()
            engine.add(request(f"long{step}", 1000, 2))
        for update in engine.step():
            if update.request_id == "stream":
                times.append(clock.monotonic())
            elif update.finish_reason:
                waits.append(clock.monotonic() - asked)
    assert len(waits) == 3
    return [b - a for a, b in itertools.pairwise(times)], waits[-1]


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_a_stream_goes_on_beside_long_prompts(run_ahead: int) -> None:
    gaps, wait = gaps_and_wait(replace(GUESS, run_ahead=run_ahead))
    # the first prompt pays for a guess that is three times too low, and teaches
    assert max(gaps) < 3.2 * 0.25
    assert max(gaps[150:]) < 1.5 * 0.25
    alone = BASE + 1000 * EACH
    assert wait < 2 * alone, "and the prompt is not starved: the rest of its time is the stream's"


def test_without_a_target_it_stalls() -> None:
    """What the target is for: the test above would notice if it did nothing."""
    gaps, _ = gaps_and_wait(replace(GUESS, step_seconds=0.0))
    assert max(gaps[150:]) > 3.0
