"""Whole random runs: whatever is scheduled, each sequence gives the tokens that it gives alone."""

import pytest

from tests.property.schedules import run_schedule


@pytest.mark.parametrize("block", range(6))
def test_random_schedules_give_the_tokens_of_a_request_alone(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        run_schedule(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_thousands_of_random_schedules(block: int) -> None:
    for seed in range(10_000 + block * 200, 10_200 + block * 200):
        run_schedule(seed, num_steps=80)
