"""The engine's loop: what it says, what it refuses, and what it does when the executor fails."""

from collections import deque
from dataclasses import replace

import pytest

from tests.fakes.fingerprint import FingerprintExecutor, reference
from vllm.engine.core import Engine
from vllm.kv.groups import make_kv_plan
from vllm.protocol.events import RequestAdded, SequenceFinished, SequencePreempted, SequenceUpdate, StepSettled
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling_params import SamplingParams
from vllm.util.clock import ManualClock

KV = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=30, block_size=4)
LIMITS = SchedulerPlan(max_num_seqs=4, max_num_batched_tokens=32, max_model_len=64)


def request(name: str = "r", prompt_len: int = 6, max_len: int = 10, n: int = 1, **fields: object) -> Request:
    prompt = TokenSpan(tuple(range(prompt_len)))
    more = {"sampling": SamplingParams(n=n), "stop_ids": frozenset(), **fields}
    return Request(name, (prompt,), seeds=tuple(range(n)), max_len=max_len, **more)  # type: ignore[arg-type]


def engine(**limits: object) -> Engine:
    plan = replace(LIMITS, **limits)  # type: ignore[arg-type]
    return Engine(plan, KV, FingerprintExecutor(KV, plan))


def drain(e: Engine) -> list[SequenceUpdate]:
    updates = []
    for _ in range(500):
        if not e.has_work:
            return updates
        updates += e.step()
    raise AssertionError("the engine does not come to an end")


def test_a_request_alone() -> None:
    e = engine()
    r = request()
    e.add(r)
    assert (e.num_waiting, e.num_running, e.has_work) == (1, 0, True)
    first = e.step()
    assert (e.num_waiting, e.num_running) == (0, 1) and len(first[0].token_ids) == 1
    rest = drain(e)
    assert [t for u in first + rest for t in u.token_ids] == reference(r, 0, KV)
    assert [u.finish_reason for u in first + rest] == [None, None, None, "length"]
    assert not e.has_work and e.step() == []


def test_a_stop_id_ends_it_and_is_named_only_if_the_user_asked_for_it() -> None:
    tokens = reference(request(), 0, KV)
    for asked, told in ((None, None), ([tokens[1]], tokens[1])):
        e = engine()
        e.add(request(stop_ids=frozenset({tokens[1]}), sampling=SamplingParams(stop_token_ids=asked)))
        last = drain(e)[-1]
        assert (last.finish_reason, last.stop_reason, last.token_ids) == ("stop", told, [tokens[1]])


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_abort_ends_a_sequence_wherever_it_is(run_ahead: int) -> None:
    e = engine(max_num_seqs=2, run_ahead=run_ahead)
    for name in ("running", "waiting"):
        e.add(request(name, n=2, max_len=40))
    e.step()
    e.step()
    assert e.abort("running", 1) == 1
    assert e.abort("waiting") == 2
    assert e.abort("nobody") == 0 and e.abort("running", 7) == 0
    said = {(u.request_id, u.index): u.finish_reason for u in e.step() if u.finish_reason}
    assert said == {("running", 1): "abort", ("waiting", 0): "abort", ("waiting", 1): "abort"}
    last = drain(e)[-1]
    assert (last.request_id, last.index, last.finish_reason) == ("running", 0, "length")
    assert e.kv.num_free == KV.num_blocks - 1


@pytest.mark.parametrize("run_ahead", [0, 1])
def test_what_an_aborted_sequence_held_is_free_one_step_later(run_ahead: int) -> None:
    e = engine(max_num_seqs=4, run_ahead=run_ahead)
    for name in ("left", "stays"):
        e.add(request(name, max_len=60))
    for _ in range(5):
        e.step()
    before = e.kv.num_free
    held = KV.num_blocks - 1 - before
    e.abort("left")
    e.step()
    assert e.kv.num_free >= before + held // 2
    assert e.num_running == 1 and len(e.scheduler.rows) == 3


def test_followers_go_on_when_their_leader_is_aborted() -> None:
    e = engine(max_num_batched_tokens=4)
    r = request(n=3)
    e.add(r)
    e.step()
    e.abort("r", 0)
    told: dict[int, list[int]] = {}
    for u in drain(e):
        told.setdefault(u.index, []).extend(u.token_ids)
    assert told[0] == [] and told[1] == reference(r, 1, KV) and told[2] == reference(r, 2, KV)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (request(prompt_len=0), "no tokens"),
        (request(prompt_len=10, max_len=10), "it may have 9 at most"),
        (request(max_len=65), "max_model_len is 64"),
    ],
)
def test_what_cannot_run_is_refused(bad: Request, words: str) -> None:
    e = engine()
    with pytest.raises(ValueError, match=words):
        e.add(bad)
    assert not e.has_work


def test_a_request_larger_than_the_cache_is_told_what_fits() -> None:
    small = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=5, block_size=4)
    e = Engine(LIMITS, small, FingerprintExecutor(small, LIMITS))
    with pytest.raises(ValueError, match="ask for at most 16 tokens"):
        e.add(request(max_len=17))
    e.add(request(max_len=16))
    assert drain(e)[-1].finish_reason == "length"


def test_an_id_is_in_use_until_its_request_has_ended() -> None:
    e = engine()
    e.add(request())
    with pytest.raises(ValueError, match="'r' is in use"):
        e.add(request())
    drain(e)
    e.add(request())
    assert drain(e)


def test_a_request_goes_on_after_a_restart_where_it_was() -> None:
    r = request(n=2)
    whole = [reference(r, i, KV) for i in range(2)]
    e = engine()
    e.add(r, emitted={0: whole[0][:2], 1: []})
    told: dict[int, list[int]] = {}
    for u in drain(e):
        told.setdefault(u.index, []).extend(u.token_ids)
    assert told == {0: whole[0][2:], 1: whole[1]}


def test_times_and_cached_tokens_are_told() -> None:
    clock = ManualClock(100.0)
    e = Engine(LIMITS, KV, FingerprintExecutor(KV, LIMITS), clock=clock)
    e.add(request("a"))
    clock.advance(1.0)
    first = e.step()[0]
    assert (first.scheduled_at, first.emitted_at, first.num_cached_tokens) == (101.0, 101.0, 0)
    drain(e)
    clock.advance(5.0)
    e.add(request("b"))
    update = drain(e)[-1]
    assert (update.scheduled_at, update.num_cached_tokens) == (106.0, 4)
    stats = e.stats()
    assert (stats.num_prefix_queried, stats.num_prefix_hit, stats.num_sampled_tokens) == (12, 4, 8)
    e.reset_prefix_cache()
    e.add(request("c"))
    assert drain(e)[-1].num_cached_tokens == 0


class Recorder:
    def __init__(self) -> None:
        self.events: list[object] = []

    def on(self, event: object) -> None:
        self.events.append(event)


def test_observers_hear_a_life_in_order() -> None:
    recorder = Recorder()
    small = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=8, block_size=4)
    e = Engine(LIMITS, small, FingerprintExecutor(small, LIMITS), observers=[recorder])
    e.add(request("a", max_len=24))
    e.add(request("b", max_len=24))
    drain(e)
    kinds = [type(event) for event in recorder.events]
    assert kinds[:2] == [RequestAdded, RequestAdded]
    assert kinds.count(SequenceFinished) == 2 and SequencePreempted in kinds
    settled = [event for event in recorder.events if isinstance(event, StepSettled)]
    assert sum(event.num_sampled for event in settled) == 2 * 18
    finished = [event for event in recorder.events if isinstance(event, SequenceFinished)]
    assert [(event.request_id, event.num_output_tokens) for event in finished] == [("a", 18), ("b", 18)]


class Failing(FingerprintExecutor):
    """Raises once, when step `at` is submitted or collected."""

    def __init__(self, limits: SchedulerPlan, at: int, where: str) -> None:
        super().__init__(KV, limits)
        self.at, self.where = at, where
        self.ids: deque[int] = deque()

    def submit(self, plan: StepPlan) -> None:
        if self.where == "submit" and plan.step_id == self.at:
            # the rows of a step that failed are in no known state, but they are still open
            for row in plan.closes:
                del self.rows[row]
            for opened in plan.opens:
                self._open(opened)
            raise MemoryError("no room for the step")
        self.ids.append(plan.step_id)
        super().submit(plan)

    def collect(self) -> StepResult:
        result = super().collect()
        if self.where == "collect" and self.ids.popleft() == self.at:
            raise MemoryError("no room for the step")
        return result


@pytest.mark.parametrize("where", ["submit", "collect"])
@pytest.mark.parametrize("run_ahead", [0, 1, 2])
def test_a_failing_executor_ends_those_it_held_and_nobody_else(where: str, run_ahead: int) -> None:
    limits = replace(LIMITS, run_ahead=run_ahead, max_num_seqs=2)
    e = Engine(limits, KV, Failing(limits, 2, where))
    requests = [request(f"r{i}", max_len=20) for i in range(4)]
    for r in requests:
        e.add(r)
    updates = drain(e)
    ends = {u.request_id: u for u in updates if u.finish_reason}
    for name in ("r0", "r1"):
        assert ends[name].finish_reason == "error" and ends[name].error == "MemoryError: no room for the step"
    for r in requests[2:]:
        assert [t for u in updates if u.request_id == r.request_id for t in u.token_ids] == reference(r, 0, KV)
    assert e.kv.num_free == KV.num_blocks - 1


class Dead:
    def submit(self, plan: StepPlan) -> None:
        raise ConnectionError("the worker is gone")

    def collect(self) -> StepResult:
        raise ConnectionError("the worker is gone")

    def close(self) -> None:
        pass


def test_a_dead_executor_ends_everybody() -> None:
    e = Engine(replace(LIMITS, max_num_seqs=1), KV, Dead())
    for i in range(3):
        e.add(request(f"r{i}", n=2))
    assert {u.error for u in drain(e)} == {"ConnectionError: the worker is gone"}


class OneFails(FingerprintExecutor):
    """The worker reports that one sequence failed by itself."""

    def collect(self) -> StepResult:
        result = super().collect()
        if result.step_id == 1:
            result.failed = [(result.seq_ids[0], result.epochs[0], "logits processor raised KeyError: 3")]
        return result


def test_a_sequence_that_fails_alone_ends_alone() -> None:
    e = Engine(LIMITS, KV, OneFails(KV, LIMITS))
    e.add(request("a"))
    e.add(request("b"))
    ends = {u.request_id: u for u in drain(e) if u.finish_reason}
    errors = sorted(u.error or "" for u in ends.values())
    assert errors == ["", "logits processor raised KeyError: 3"]


def test_close_is_final_and_safe_to_call_twice() -> None:
    e = engine()
    e.add(request())
    e.close()
    e.close()
    assert not e.has_work
    with pytest.raises(AssertionError, match="closed"):
        e.add(request())
