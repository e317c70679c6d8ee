"""How long a plan may wait while the device is busy."""

from dataclasses import replace

import pytest

from vllm.engine.leisure import Leisure
from vllm.protocol.plan import SchedulerPlan
from vllm.scheduler.budget import StepBudget

LIMITS = SchedulerPlan(64, 2048, 4096, run_ahead=1, step_seconds=0.02, step_base_seconds=0.01, step_token_seconds=1e-5)


def made(limits: SchedulerPlan = LIMITS) -> Leisure:
    return Leisure(limits, StepBudget(limits))


def test_a_plan_waits_until_the_step_that_runs_is_nearly_over() -> None:
    leisure = made()
    leisure.submitted(1.0, 1.0005, is_alone=True)
    left = leisure.left(8, 1.0005)
    assert 0.005 < left < 0.0076, "three quarters of 10 ms, less what the host needs"
    assert leisure.left(8, 1.0005 + left) == pytest.approx(0.0, abs=1e-9)
    assert leisure.left(8, 1.02) == 0.0
    leisure.submitted(1.01, 1.0105, is_alone=False)
    assert leisure.left(8, 1.0105) == 0.0, "the step behind one that runs has not begun"
    leisure.collected(1.011)
    assert leisure.left(8, 1.011) > 0.005


def test_a_slow_host_plans_at_once() -> None:
    leisure = made()
    leisure.submitted(1.0, 1.004, is_alone=True)
    assert leisure.left(8, 1.004) == 0.0
    for _ in range(30):
        leisure.submitted(2.0, 2.0005, is_alone=True)
    assert leisure.left(8, 2.0005) > 0.005, "and is forgiven in time"


def test_without_a_target_or_without_steps_ahead_nothing_waits() -> None:
    for limits in (replace(LIMITS, step_seconds=0.0), replace(LIMITS, run_ahead=0)):
        leisure = made(limits)
        leisure.submitted(1.0, 1.0005, is_alone=True)
        assert leisure.left(8, 1.0005) == 0.0
