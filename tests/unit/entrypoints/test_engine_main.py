"""What an engine tells its front."""

import pytest

from tests.fakes.fingerprint import FingerprintExecutor
from vllm.engine.core import Engine
from vllm.entrypoints.engine_main import longest
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
