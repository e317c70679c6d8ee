"""The property tests are worth something: each seeded defect makes some random schedule fail, soon."""

import pytest

from tests.property.defects import DEFECTS, Defect, seeded
from tests.property.schedules import run_schedule

MOST_SCHEDULES = 40


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name.replace(" ", "-"))
def test_a_seeded_defect_is_caught(defect: Defect) -> None:
    with seeded(defect):
        for seed in range(MOST_SCHEDULES):
            try:
                run_schedule(seed)
            except Exception:
                return
    pytest.fail(f"{defect.name}: not caught in {MOST_SCHEDULES} schedules")
