"""Fair shares between tenants over whole runs, in simulated time: one step is one unit, whatever is in it.

Ten tenants, one of whom sends ten times as much as each of the others and more than the engine can do. The tokens are
the fingerprint executor's where sequences lose their places, so that an exchange that spoils anything shows.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from tests.fakes.fingerprint import FingerprintExecutor, reference
from vllm.engine.core import Engine
from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling_params import SamplingParams
from vllm.util.clock import ManualClock

LOUD = "loud"
QUIET = [f"quiet {i}" for i in range(9)]


@dataclass
class OneToken:
    """An executor that gives every sequence the token 1, at once."""

    sequences: dict[int, tuple[int, int]] = field(default_factory=dict)
    results: deque[StepResult] = field(default_factory=deque)

    def submit(self, plan: StepPlan) -> None:
        for row in plan.closes:
            del self.sequences[row]
        self.sequences.update((o.row, (o.seq_id, o.epoch)) for o in plan.opens)
        rows = [row for row, samples in zip(plan.rows, plan.samples, strict=True) if samples]
        ids, epochs = ([self.sequences[row][i] for row in rows] for i in (0, 1))
        self.results.append(StepResult(plan.step_id, ids, epochs, [[1] for _ in rows]))

    def collect(self) -> StepResult:
        return self.results.popleft()

    def close(self) -> None:
        pass


def request(name: str, tenant: str, arrival: float, prompt: Iterable[int], num_output: int) -> Request:
    span = TokenSpan(tuple(prompt))
    params = SamplingParams(max_tokens=num_output)
    max_len = span.num_tokens + num_output
    return Request(name, (span,), params, (7,), max_len, frozenset(), arrival=arrival, tenant=tenant)


def traffic(tenants: dict[str, float], steps: int, seed: int) -> list[Request]:
    """Requests of each tenant at its rate (requests a step), in order of arrival; each tenant has dice of its own."""
    asked = []
    for tenant, rate in tenants.items():
        r, at = random.Random(f"{seed} {tenant}"), 0.0
        while (at := at + r.expovariate(rate)) < steps:
            prompt = [r.randrange(1000) for _ in range(r.randint(16, 96))]
            asked.append(request(f"{tenant} at {at}", tenant, at, prompt, r.randint(8, 56)))
    return sorted(asked, key=lambda one: one.arrival)


def first_tokens(asked: list[Request], policy: str, steps: int) -> dict[str, list[float]]:
    """Each tenant's times to the first token."""
    limits = SchedulerPlan(16, 256, 256, policy=policy, enable_prefix_caching=False, run_ahead=1)
    kv = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=400, block_size=8)
    clock = ManualClock()
    engine = Engine(limits, kv, OneToken(), clock=clock)
    owner = {one.request_id: one for one in asked}
    coming, took = deque(asked), {one.tenant: [] for one in asked}  # type: dict
    seen = set()
    for now in range(steps):
        while coming and coming[0].arrival <= now:
            engine.add(coming.popleft())
        clock.advance(1)
        for update in engine.step() if engine.has_work else ():
            if update.token_ids and update.request_id not in seen:
                seen.add(update.request_id)
                one = owner[update.request_id]
                took[one.tenant].append(now + 1 - one.arrival)
    for one in asked:
        if one.request_id not in seen and one.arrival < steps - 50:
            took[one.tenant].append(math.inf)
    return took


def p99(times: Iterable[float]) -> float:
    ordered = sorted(times)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


def of_quiet(took: dict[str, list[float]]) -> list[float]:
    return [time for tenant in QUIET for time in took[tenant]]


@pytest.mark.parametrize("seed", [1, 2])
def test_one_that_sends_ten_times_as_much_does_not_delay_the_others(seed: int) -> None:
    # why: 16 rows and 33 steps a request are about 0.48 requests a step; the others ask for half of it.
    steps, rate = 4000, 0.027
    others = dict.fromkeys(QUIET, rate)
    alone = first_tokens(traffic(others, steps, seed), "fair", steps)
    beside = traffic({**others, LOUD: 10 * rate}, steps, seed)
    fair, fcfs = (first_tokens(beside, policy, steps) for policy in ("fair", "fcfs"))
    assert p99(of_quiet(fair)) <= 1.2 * p99(of_quiet(alone))
    assert p99(of_quiet(fcfs)) > 5 * p99(of_quiet(alone)), "the load is too small to show anything"


def test_who_loses_a_place_loses_no_token_and_everybody_ends() -> None:
    limits = SchedulerPlan(4, 64, 256, policy="fair", enable_prefix_caching=True, run_ahead=1)
    kv = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=200, block_size=4)
    executor = FingerprintExecutor(kv, limits)
    engine = Engine(limits, kv, executor)
    r = random.Random(3)
    asked = [request(f"{LOUD} {i}", LOUD, 0.0, r.choices(range(40), k=20), 20) for i in range(60)]
    asked += [request(f"{QUIET[i % 9]} {i}", QUIET[i % 9], 0.0, r.choices(range(40), k=9), 8) for i in range(27)]
    for one in asked[:60]:
        engine.add(one)
    late = deque(asked[60:])
    told: Counter[str] = Counter()
    tokens: dict[str, list[int]] = {one.request_id: [] for one in asked}
    for step in range(2000):
        if late and step % 5 == 4:
            engine.add(late.popleft())
        for update in engine.step() if engine.has_work else ():
            tokens[update.request_id] += update.token_ids
            told[update.request_id] += update.finish_reason == "length"
    assert engine.scheduler.num_preempted > 0
    assert told == Counter(tokens.keys())
    assert tokens == {one.request_id: reference(one, 0, kv) for one in asked}
    engine.check()
