"""What an engine tells its front."""

import socket
import threading
import time

import pytest

from tests.fakes.fingerprint import FingerprintExecutor
from vllm.engine.core import Engine
from vllm.engine.wire import Reset
from vllm.entrypoints.engine_main import Child, Fragile, longest
from vllm.errors import CapacityError
from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan


@pytest.mark.parametrize(("num_blocks", "expected"), [(10, 36), (12, 44), (30, 50)])
def test_the_longest_sequence_is_what_the_cache_or_the_context_holds(num_blocks: int, expected: int):
    kv = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=num_blocks, block_size=4, usual_len=32)
    limits = SchedulerPlan(max_num_seqs=2, max_num_batched_tokens=64, max_model_len=50)
    engine = Engine(limits, kv, FingerprintExecutor(kv, limits))
    assert longest(engine) == expected
    engine.scheduler.door.check_fits(expected)
    with pytest.raises(CapacityError):
        engine.scheduler.door.check_fits(expected + 1)


KV = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=30, block_size=4, usual_len=32)
LIMITS = SchedulerPlan(max_num_seqs=2, max_num_batched_tokens=64, max_model_len=50)


class Preparing(FingerprintExecutor):
    """Has two pieces to make ready and fails at the third."""

    pieces = 0

    def prepare(self) -> tuple[int, float]:
        self.pieces += 1
        if self.pieces > 2:
            raise RuntimeError("no room for another recording")
        return 64, 0.01


def test_while_nobody_asks_steps_are_made_ready_and_a_failure_of_that_harms_nobody(caplog) -> None:
    executor, (ours, theirs) = Preparing(KV, LIMITS), socket.socketpair()
    engine = Engine(LIMITS, KV, Fragile(executor))
    with ours, theirs:
        child = Child(ours)
        threading.Timer(0.2, child._inbox.put, (Reset(),)).start()
        assert isinstance(child._next(engine, 0.0), Reset)
        assert executor.pieces == 3 and "no room for another recording" in caplog.text
        threading.Timer(0.05, child._inbox.put, (Reset(),)).start()
        assert isinstance(child._next(engine, 0.0), Reset) and executor.pieces == 3


def test_a_request_that_waits_comes_before_what_is_made_ready() -> None:
    executor, (ours, theirs) = Preparing(KV, LIMITS), socket.socketpair()
    with ours, theirs:
        child = Child(ours)
        child._inbox.put(Reset())
        assert isinstance(child._next(Engine(LIMITS, KV, executor), 0.0), Reset) and executor.pieces == 0


def test_commands_that_come_while_the_device_is_busy_are_part_of_the_next_plan() -> None:
    engine, (ours, theirs) = Engine(LIMITS, KV, Preparing(KV, LIMITS)), socket.socketpair()
    with ours, theirs:
        child = Child(ours)
        engine._live["r"] = []  # there is work
        threading.Timer(0.1, child._inbox.put, (Reset(),)).start()
        began = time.monotonic()
        assert isinstance(child._next(engine, began + 5.0), Reset) and time.monotonic() - began < 2.0
        assert child._next(engine, time.monotonic() + 0.05) is None
        assert child._next(engine, 0.0) is None
