"""The one door between the engine and the workers."""

from typing import Protocol

from vllm.protocol.step import StepPlan, StepResult


class Executor(Protocol):
    """Carries plans down and results up, in order. With run-ahead r, up to r + 1 plans may be in flight."""

    def submit(self, plan: StepPlan) -> None:
        """Hand over the next plan; returns at once where the device allows it."""
        ...

    def collect(self) -> StepResult:
        """Result of the oldest plan in flight; waits for it."""
        ...

    def prepare(self) -> tuple[int, float] | None:
        """Nobody waits: do a piece of what makes later steps faster, and say how long a step took that was tried for it
        (tokens, seconds). None: nothing is left to do."""
        ...

    def close(self) -> None:
        """Give every resource back; further calls are errors. Safe to call twice."""
        ...
