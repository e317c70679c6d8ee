"""The executor in this process: what is left of it when it is closed."""

import weakref

from tests.unit.worker.helpers import make_host
from vllm.platforms.cpu import CpuPlatform


def test_a_closed_one_gives_the_device_its_memory_back(monkeypatch):
    executor = make_host().executor
    runner = weakref.ref(executor.runner)
    runner().me = runner()  # as graphs and what they read
    told = []
    monkeypatch.setattr(CpuPlatform, "release", lambda self, index: told.append((index, runner())))
    executor.close()
    executor.close()
    assert told == [(0, None)], "the runner must be gone by then, and it is said once"


def test_whoever_still_holds_a_closed_runner_holds_no_model():
    executor = make_host().executor
    runner = executor.runner
    model, slab = weakref.ref(runner.model), weakref.ref(runner.slabs[0])
    executor.close()
    assert runner is not None and model() is None and slab() is None
