"""The step's budget: limits, and the time target that cuts prefill beside decodes."""

from dataclasses import replace

from vllm.protocol.plan import SchedulerPlan
from vllm.scheduler.budget import LEAST_CHUNK, StepBudget

LIMITS = SchedulerPlan(
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    max_model_len=4096,
    step_seconds=1.0,
    step_base_seconds=0.5,
    step_token_seconds=1 / 1024,
)


def test_the_target_holds_while_sequences_decode_and_few_wait() -> None:
    budget = StepBudget(LIMITS)
    assert budget.tokens(num_decoding=8, num_waiting=1) == 512
    assert budget.tokens(num_decoding=0, num_waiting=1) == 2048, "nobody to disturb"
    assert budget.tokens(num_decoding=8, num_waiting=5) == 2048, "a deep queue wants throughput"
    assert budget.tokens(num_decoding=60, num_waiting=15) == 512


def test_without_a_target_the_budget_is_full() -> None:
    assert StepBudget(replace(LIMITS, step_seconds=0.0)).tokens(8, 1) == 2048


def test_every_decode_and_a_least_chunk_fit_whatever_the_target_says() -> None:
    budget = StepBudget(replace(LIMITS, step_seconds=0.25, max_tokens_per_step=2))
    assert budget.tokens(num_decoding=40, num_waiting=0) == 80 + LEAST_CHUNK


def test_measured_steps_move_the_prediction() -> None:
    budget = StepBudget(LIMITS)
    for _ in range(100):
        budget.observe(512, 2.0)  # twice as slow as predicted
    assert budget.tokens(8, 1) == 24, "not even the base fits: decodes and the least chunk"
    for _ in range(200):
        budget.observe(512, 0.5)
    assert 1500 <= budget.tokens(8, 1) <= 1536
    before = budget.tokens(8, 1)
    budget.observe(512, 0.0)
    assert budget.tokens(8, 1) == before, "a worker that does not measure teaches nothing"


def test_one_odd_step_hardly_counts() -> None:
    budget = StepBudget(LIMITS)
    budget.observe(512, 60.0)
    assert budget.tokens(8, 1) > LEAST_CHUNK


def test_speculation_gives_way_to_a_small_budget() -> None:
    budget = StepBudget(replace(LIMITS, max_num_batched_tokens=100, max_tokens_per_step=4))
    assert [budget.usual_query(n) for n in (0, 10, 30, 64)] == [4, 4, 3, 1]
