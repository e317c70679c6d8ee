"""Time, in one place, so that a test can own it.

For: durations (`monotonic`, never jumps) and dates (`wall`, may jump). Does not know: who waits for what.
Invariant: no room calls the `time` module for either; what it times it takes as a `Clock`.
Called by: engine, scheduler, entrypoints.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What a room needs to know about time."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; only differences mean something."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; may go backwards."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only when told to; for tests and replays."""

    def __init__(self, monotonic: float = 0.0, wall: float = 0.0) -> None:
        self._monotonic, self._wall = monotonic, wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let `seconds` >= 0 pass on both clocks."""
        assert seconds >= 0, "a monotonic clock never goes back; use jump()"
        self._monotonic += seconds
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; durations do not notice."""
        self._wall += seconds


SYSTEM = SystemClock()
