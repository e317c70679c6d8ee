"""The step's budget: limits, and the time target that cuts prefill beside decodes."""

from dataclasses import replace

import pytest

from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.sizes import TOTALS, lines_for
from vllm.scheduler.budget import LEAST_CHUNK, StepBudget

LIMITS = SchedulerPlan(
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    max_model_len=4096,
    step_seconds=1.0,
    step_base_seconds=0.4,
    step_token_seconds=1 / 1024,
)


def test_the_target_holds_while_sequences_decode_and_few_wait() -> None:
    budget = StepBudget(LIMITS)
    assert budget.tokens(num_decoding=8, num_waiting=1) == 614
    assert budget.tokens(num_decoding=0, num_waiting=1) == 2048, "nobody to disturb"
    assert budget.tokens(num_decoding=8, num_waiting=5) == 2048, "a deep queue wants throughput"
    assert budget.tokens(num_decoding=60, num_waiting=15) == 614


def test_without_a_target_the_budget_is_full() -> None:
    assert StepBudget(replace(LIMITS, step_seconds=0.0)).tokens(8, 1) == 2048


def test_every_decode_and_a_least_chunk_fit_whatever_the_target_says() -> None:
    slow = replace(LIMITS, step_seconds=0.25, step_base_seconds=1e-6, step_token_seconds=1.0, max_tokens_per_step=2)
    assert StepBudget(slow).tokens(num_decoding=4, num_waiting=0) == 8 + LEAST_CHUNK


def test_a_step_may_always_double_for_prefill() -> None:
    """Where decodes alone miss the target, prompts must get on all the same."""
    budget = StepBudget(replace(LIMITS, step_seconds=0.1))
    assert budget.tokens(num_decoding=8, num_waiting=1) == int((2 * (0.4 + 8 / 1024) - 0.4) * 1024)


def test_measured_steps_move_the_prediction() -> None:
    """What decodes take is base, what chunks take beyond it is tokens; the guesses were three times off."""
    budget = StepBudget(replace(LIMITS, step_seconds=1.0))
    for num_tokens in [8, 8, 8, 512] * 50:
        budget.observe(num_tokens, 0.15 + num_tokens * 3 / 1024)
    took = budget.tokens(8, 1)
    assert took == pytest.approx((1.0 - 0.15) * 1024 / 3, rel=0.1)
    for num_tokens in [8, 8, 8, 512] * 50:
        budget.observe(num_tokens, 0.15 + num_tokens / 4096)
    assert budget.tokens(8, 1) == 2048, "a machine that got faster is found out too"
    before = budget.tokens(8, 5), budget.tokens(8, 1)
    budget.observe(512, 0.0)
    assert (budget.tokens(8, 5), budget.tokens(8, 1)) == before, "a worker that does not measure teaches nothing"


def test_one_odd_step_does_not_decide() -> None:
    budget = StepBudget(LIMITS)
    usual = budget.tokens(8, 1)
    budget.observe(512, 60.0)
    assert usual * 0.2 < budget.tokens(8, 1) < usual


def test_speculation_gives_way_to_a_small_budget() -> None:
    budget = StepBudget(replace(LIMITS, max_num_batched_tokens=100, max_tokens_per_step=4))
    assert [budget.usual_query(n) for n in (0, 10, 30, 64)] == [4, 4, 3, 1]


FILLS = replace(LIMITS, fills_sizes=True, step_seconds=0.02, step_base_seconds=0.005, step_token_seconds=2e-5)


def test_steps_beside_streams_have_the_sizes_that_are_recorded() -> None:
    """Whatever waits: decodes with their idle lines and the chunk are together a size, and the target holds."""
    budget = StepBudget(FILLS)
    for decodes in (1, 8, 9, 32, 33, 200):
        lines = lines_for(decodes)
        assert lines is not None and lines >= decodes
        for left in (1, 60, 400, 520, 1024):
            chunk = budget.tokens(decodes, 1, left) - decodes
            assert lines + chunk in TOTALS and chunk >= LEAST_CHUNK
            if left <= 3 * (512 - lines):
                assert lines + chunk <= 740 or chunk == min(n - lines for n in TOTALS if n - lines >= LEAST_CHUNK)
    assert budget.tokens(0, 1, 1024) == 2048, "nobody to disturb"
    assert lines_for(300) is None, "no recording has so many decodes"
    assert budget.tokens(300, 1, 1024) == int((2 * (0.005 + 300 * 2e-5) - 0.005) / 2e-5)


def test_a_line_of_prompts_gets_the_largest_size_and_one_without_end_all_there_is() -> None:
    """One step of 4,000 tokens makes the first of eight wait for the last; steps of 1,024 compute a token as soon."""
    budget = StepBudget(FILLS)
    for num_waiting in (1, 20):  # how long they are counts, not how many
        assert budget.tokens(30, num_waiting, 3 * 608) == 30 + 640 - 32
        assert budget.tokens(30, num_waiting, 3 * 608 + 1) == 30 + 1024 - 32
        assert budget.tokens(30, num_waiting, 8 * 992) == 30 + 1024 - 32
        assert budget.tokens(30, num_waiting, 8 * 992 + 1) == 2048
    assert budget.tokens(300, 200, 5000) == 2048, "no size: many who wait are the measure"


def test_a_prompt_is_cut_into_as_few_and_as_small_steps_as_can_be() -> None:
    budget = StepBudget(FILLS)
    assert budget.tokens(5, 1, 1024) == 5 + 640 - 8, "two steps of 640 at most,"
    assert budget.tokens(5, 1, 1024 - 632) == 5 + 480 - 8, "and for what is left a smaller one is enough"
    assert budget.tokens(5, 1, 700) == 5 + 384 - 8, "halves, not most of it and a rest"
    assert budget.tokens(5, 1, 20) == 5 + 64 - 8
    assert StepBudget(replace(FILLS, max_num_batched_tokens=64)).tokens(33, 1, 500) == 64, "a small budget is kept"
