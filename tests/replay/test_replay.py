"""The same arrivals give the same plans, commit after commit.

After a change that was meant: `python -m tests.replay.streams`, and the diff of pins.txt says what it did.
"""

import pytest

from tests.replay.streams import PINS, RUNS, digest

PINNED = dict(line.split(": ", 1) for line in PINS.read_text("utf-8").splitlines())


def test_every_run_is_pinned() -> None:
    assert list(PINNED) == list(RUNS)


@pytest.mark.parametrize("run", RUNS)
def test_plans_are_the_pinned_ones(run: str) -> None:
    assert digest(run) == PINNED[run]
