"""The order in which a batch is queued."""

from dataclasses import replace

from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.sampling_params import SamplingParams
from vllm.scheduler.batch import longest_first

LIMITS = SchedulerPlan(max_num_seqs=2, max_num_batched_tokens=16, max_model_len=64)
KV = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=100, block_size=4)


def asks(*lens: tuple[int, int], n: int = 1) -> list[Request]:
    """One request for each (tokens of the prompt, most tokens of the answer)."""
    return [
        Request(str(i), (TokenSpan((1,) * prompt),), SamplingParams(n=n), tuple(range(n)), prompt + most, frozenset())
        for i, (prompt, most) in enumerate(lens)
    ]


def test_by_the_bound_of_the_answer_and_equal_ones_as_they_came() -> None:
    assert longest_first(asks((4, 5), (30, 2), (1, 9), (9, 5), (2, 9)), LIMITS, KV) == [2, 4, 0, 3, 1]
    assert longest_first(asks((1, 5), (9, 5), (5, 5)), LIMITS, KV) == [0, 1, 2]
    assert longest_first([], LIMITS, KV) == []


def test_as_they_came_where_everybody_has_a_row() -> None:
    assert longest_first(asks((1, 2), (1, 9)), LIMITS, KV) == [0, 1]
    assert longest_first(asks((1, 2), (1, 9), n=2), LIMITS, KV) == [1, 0], "siblings need rows too"


def test_as_they_came_where_the_cache_cannot_hold_the_longest_together() -> None:
    # The two longest have 12 and 8 tokens: 3 and 2 blocks of 4, and a block that nobody gets.
    long = asks((4, 2), (4, 8), (4, 4))
    assert longest_first(long, LIMITS, replace(KV, num_blocks=6)) == [1, 2, 0]
    assert longest_first(long, LIMITS, replace(KV, num_blocks=5)) == [0, 1, 2]
    two = asks((4, 2), (4, 8), (4, 4), n=2)
    assert longest_first(two, LIMITS, replace(KV, num_blocks=7)) == [1, 2, 0], "both rows are the first one's"
    assert longest_first(two, LIMITS, replace(KV, num_blocks=6)) == [0, 1, 2]
