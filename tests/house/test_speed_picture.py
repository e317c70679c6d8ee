"""The picture of speeds tells what the ledger holds now."""

import pytest

from benchmarks import speed


def test_the_picture_is_the_ledgers():
    assert speed.PICTURE.read_text(encoding="utf-8") == speed.draw(), "run python -m benchmarks.speed"


@pytest.mark.parametrize(("case", "ours", "theirs", "want"), [("b32", 5.0, 6.0, 1.2), ("prefill", 60.0, 50.0, 1.2)])
def test_short_steps_and_large_rates_are_fast(case, ours, theirs, want):
    assert speed.times(case, ours, theirs) == pytest.approx(want)
