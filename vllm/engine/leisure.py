"""How long the next plan may wait while the device is busy, so that requests that come meanwhile are part of it.

    device  | step N          | step N+1        |            a plan made at once would stand behind step N+1 already
    host      collect N, .... plan N+1 ^ in time

Only where tokens are read as they come (a time target) and steps are given ahead. A step is taken to be a quarter
shorter than predicted, and the host to be as slow as it was of late: a device that waits costs more than is gained.
Does not know: sequences, plans, clocks. Called by: core.
"""

from vllm.protocol.plan import SchedulerPlan
from vllm.scheduler.budget import StepBudget

_SURE = 0.75
_LEAST_S = 0.0005
_FORGET = 0.9


class Leisure:
    """See the module."""

    def __init__(self, limits: SchedulerPlan, budget: StepBudget) -> None:
        self._is_on = limits.step_seconds > 0 and limits.run_ahead == 1
        self._budget = budget
        self._began = 0.0
        """When the step that runs now began, as far as the host saw."""
        self._host_s = _LEAST_S
        """What the host takes from the decision to plan until the device has the step."""

    def submitted(self, began: float, ended: float, is_alone: bool) -> None:
        """A plan was made and handed over; `is_alone`: the device had nothing else to do."""
        self._host_s = max(ended - began, _FORGET * self._host_s, _LEAST_S)
        if is_alone:
            self._began = ended

    def collected(self, now: float) -> None:
        """A step has ended; the one behind it, if any, begins."""
        self._began = now

    def left(self, num_tokens: int, now: float) -> float:
        """Seconds, 0.0 at least, until the plan behind a step of `num_tokens` has to be made."""
        if not self._is_on:
            return 0.0
        ends = self._began + _SURE * self._budget.expected(num_tokens)
        return max(0.0, ends - 2 * self._host_s - now)
