"""Single plans: what a step holds, and why. Whole runs are in tests/property."""

from dataclasses import replace

import pytest

from vllm.kv.groups import make_kv_plan
from vllm.kv.manager import KVManager
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.sequence import Sequence, Status
from vllm.protocol.step import StepPlan, StepResult
from vllm.sampling_params import SamplingParams
from vllm.scheduler.flight import InFlight
from vllm.scheduler.scheduler import Scheduler

LIMITS = SchedulerPlan(max_num_seqs=4, max_num_batched_tokens=16, max_model_len=64)


class Bench:
    """A scheduler whose steps are settled by hand, each with one token per sampled sequence."""

    def __init__(self, num_blocks: int = 100, resources: tuple = (), **limits: object) -> None:
        self.kv = KVManager(make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=num_blocks, block_size=4))
        self.scheduler = Scheduler(replace(LIMITS, **limits), self.kv, resources)
        self.flights: list[InFlight] = []

    def add(self, prompt_len: int, n: int = 1, max_len: int = 64, first: int = 0, **fields: object) -> list[Sequence]:
        prompt = TokenSpan(tuple(range(first, first + prompt_len)))
        request = Request("r", (prompt,), SamplingParams(n=n), tuple(range(n)), max_len, frozenset(), **fields)  # type: ignore[arg-type]
        seqs = [Sequence(request, i, self.scheduler.next_seq_id()) for i in range(n)]
        self.scheduler.add(seqs)
        return seqs

    def plan(self) -> StepPlan | None:
        made = self.scheduler.plan()
        if made is None:
            return None
        self.flights.append(made[1])
        return made[0]

    def settle(self) -> None:
        from vllm.engine.settle import settle

        flight = self.flights.pop(0)
        ids, epochs = [s.seq_id for s in flight.sampled], [s.epoch for s in flight.sampled]
        settled = settle(flight, StepResult(flight.step_id, ids, epochs, [[9] for _ in ids]), self.kv, 0.0)
        self.scheduler.finish(settled.ended)
        self.scheduler.check()

    def step(self) -> StepPlan:
        plan = self.plan()
        assert plan is not None
        self.settle()
        return plan


def test_a_prompt_is_cut_to_the_budget_and_samples_with_its_last_chunk() -> None:
    bench = Bench()
    bench.add(40)
    plans = [bench.step() for _ in range(4)]
    assert [p.num_query for p in plans] == [[16], [16], [8], [1]]
    assert [p.samples for p in plans] == [[False], [False], [True], [True]]
    assert len(plans[0].opens) == 1 and not plans[1].opens
    assert [len(blocks) for p in plans for _, _, blocks in p.new_blocks] == [4, 2, 1]


def test_decodes_come_before_chunks_and_keep_their_token() -> None:
    bench = Bench()
    bench.add(4)
    bench.step()
    bench.add(40, first=100)
    assert bench.step().num_query == [1, 15]


def test_no_more_rows_than_sequences_allowed() -> None:
    bench = Bench()
    for i in range(6):
        bench.add(2, first=10 * i)
    assert len(bench.step().rows) == 4
    assert len(bench.scheduler.waiting) == 2


def test_a_long_prompt_can_be_held_to_a_threshold() -> None:
    bench = Bench(long_prefill_token_threshold=5)
    bench.add(12)
    bench.add(3, first=50)
    assert bench.step().num_query == [5, 3]


def test_without_chunking_a_prompt_waits_for_a_budget_that_holds_it() -> None:
    bench = Bench(enable_chunked_prefill=False, max_num_batched_tokens=64)
    bench.add(40)
    bench.add(40, first=100)
    assert bench.step().num_query == [40]
    assert bench.step().num_query == [1, 40]


def test_siblings_sample_from_the_prompts_last_chunk_and_copy_in_the_next_plan() -> None:
    bench = Bench()
    seqs = bench.add(18, n=3)
    first, second, third = bench.step(), bench.step(), bench.step()
    assert first.num_query == [16] and not first.fan_out
    assert second.num_query == [2] and second.fan_out == [(1, 0), (2, 0)]
    opened = {o.seq_id: o for o in second.opens}
    for seq in seqs[1:]:
        assert opened[seq.seq_id].num_computed == 18
        assert opened[seq.seq_id].block_ids[0][:4] == seqs[0].tables[0][:4]
    assert not second.copies and len(third.copies) == 2
    assert {source for source, _ in third.copies} == {seqs[0].tables[0][4]}
    assert third.num_query == [1, 1, 1]
    assert [seq.num_cached_tokens for seq in seqs] == [0, 0, 0]


def test_siblings_that_find_no_row_come_later_with_a_prefix_hit() -> None:
    bench = Bench(max_num_seqs=2)
    seqs = bench.add(9, n=4, max_len=12)
    plan = bench.step()
    assert plan.fan_out == [(1, 0)]
    while any(seq.status is not Status.FINISHED for seq in seqs):
        bench.step()
    assert [seq.num_cached_tokens for seq in seqs] == [0, 0, 8, 8]
    assert all(len(seq.tokens) == 12 for seq in seqs)


def test_the_latest_is_preempted_when_blocks_run_out_and_keeps_its_tokens() -> None:
    bench = Bench(num_blocks=8, max_model_len=28)
    a, b = bench.add(8, max_len=28)[0], bench.add(8, max_len=28, first=30)[0]
    while b.status is not Status.WAITING or not b.epoch:
        bench.step()
    assert a.status is Status.RUNNING and b.row == -1 and b.tables == []
    known = list(b.tokens)
    while b.status is not Status.FINISHED:
        bench.step()
    assert b.tokens[: len(known)] == known and b.epoch == 2
    assert len(a.tokens) == len(b.tokens) == 28


def test_tokens_in_flight_outlive_a_preemption() -> None:
    bench = Bench(num_blocks=6, max_model_len=20, run_ahead=1)
    a, b = bench.add(8, max_len=20)[0], bench.add(4, max_len=20, first=30)[0]
    bench.plan()
    while b.status is Status.RUNNING or not b.epoch:
        bench.plan()
        if b.status is Status.RUNNING:
            bench.settle()
    assert bench.scheduler.in_flight(b)
    before = len(b.tokens)
    while bench.flights:
        bench.settle()
    assert len(b.tokens) == before + 1
    assert a.status is Status.RUNNING


def test_priority_takes_the_place_of_the_less_urgent() -> None:
    bench = Bench(policy="priority", max_num_seqs=1)
    low = bench.add(4, priority=5)[0]
    bench.step()
    urgent = bench.add(4, priority=1, first=20)[0]
    plan = bench.step()
    assert low.status is Status.WAITING and urgent.status is Status.RUNNING
    assert plan.closes == [0] and [o.seq_id for o in plan.opens] == [urgent.seq_id]


def test_a_row_is_closed_in_the_plan_that_gives_it_away() -> None:
    bench = Bench(max_num_seqs=1)
    bench.add(4, max_len=5)
    bench.step()
    bench.add(4, first=20)
    plan = bench.step()
    assert plan.closes == [0] and plan.opens[0].row == 0


def test_with_run_ahead_a_sequence_that_has_surely_ended_gets_no_more_steps() -> None:
    bench = Bench(run_ahead=1)
    bench.add(4, max_len=5)
    assert bench.plan() is not None
    assert bench.plan() is None
    bench.settle()
    assert not bench.scheduler.running()


def test_speculation_asks_for_as_many_tokens_as_may_still_come() -> None:
    bench = Bench(max_tokens_per_step=4)
    bench.add(4, max_len=8)
    assert bench.step().num_query == [4]
    assert bench.step().num_query == [3]
    assert bench.step().num_query == [2]
    assert bench.step().num_query == [1]
    assert not bench.scheduler.running()


def test_a_sequence_resumed_with_its_tokens_computes_them_like_a_prompt() -> None:
    bench = Bench()
    request = Request("r", (TokenSpan((1, 2, 3)),), SamplingParams(), (0,), 64, frozenset())
    seq = Sequence(request, 0, 0, emitted=(4, 5))
    bench.scheduler.add([seq])
    plan = bench.step()
    assert plan.num_query == [5] and plan.opens[0].token_ids == [1, 2, 3, 4, 5] and plan.opens[0].prompt_len == 3


class Slots:
    """A resource with a few slots, as adapters would need."""

    def __init__(self, num_slots: int) -> None:
        self.free, self.held = num_slots, set()

    def claims(self, request: Request) -> bool:
        return "slot" in request.features

    def reserve(self, seq: Sequence, num_tokens: int) -> bool:
        if seq.seq_id not in self.held:
            if not self.free:
                return False
            self.free -= 1
            self.held.add(seq.seq_id)
        return True

    def release(self, seq: Sequence) -> None:
        self.held.remove(seq.seq_id)
        self.free += 1


def test_a_refused_resource_holds_up_its_own_sequence_only() -> None:
    slots = Slots(1)
    bench = Bench(resources=(slots,))
    first = bench.add(4, max_len=6, features={"slot": 1})[0]
    second = bench.add(4, max_len=6, features={"slot": 1}, first=20)[0]
    third = bench.add(4, max_len=6, first=40)[0]
    bench.step()
    assert (first.status, second.status, third.status) == (Status.RUNNING, Status.WAITING, Status.RUNNING)
    bench.step()
    bench.step()
    assert second.status is Status.RUNNING and slots.free == 0
    bench.step()
    assert slots.free == 1


def test_too_long_a_request_is_told_what_fits() -> None:
    bench = Bench(num_blocks=8)
    bench.scheduler.door.check_fits(28)
    with pytest.raises(ValueError, match="the KV cache holds 28 at most"):
        bench.scheduler.door.check_fits(29)
    with pytest.raises(ValueError, match="max_model_len is 64; ask for at most 64"):
        bench.scheduler.door.check_fits(65)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_num_batched_tokens": 3}, "at least max_num_seqs \\(4\\)"),
        ({"enable_chunked_prefill": False}, "at least max_model_len \\(64\\)"),
        ({"policy": "lifo"}, "fcfs, priority, fair"),
    ],
)
def test_limits_that_no_schedule_can_keep_are_refused(limits: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Bench(**limits)  # type: ignore[arg-type]
