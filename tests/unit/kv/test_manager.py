"""The KV manager on its own: hits by the rules of wall 4, windows, siblings, and blocks that come back late."""

import pytest

from vllm.kv.groups import make_kv_plan
from vllm.kv.manager import KVManager
from vllm.protocol.kv import NULL_BLOCK, FullKV, KVKind, SlidingKV
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.sequence import Sequence
from vllm.sampling_params import SamplingParams

FULL = FullKV(2, 4, 4)
WINDOW = SlidingKV(2, 4, 4, 6)


def manager(kinds: list[KVKind], num_blocks: int = 40, block_size: int = 4, caching: bool = True) -> KVManager:
    return KVManager(make_kv_plan(kinds, "float32", num_blocks=num_blocks, block_size=block_size), caching)


def sequence(tokens: int = 20, first: int = 0) -> Sequence:
    request = Request("r", (TokenSpan(tuple(range(first, first + tokens))),), SamplingParams(), (0,), 99, frozenset())
    return Sequence(request, 0, 0)


def compute(kv: KVManager, seq: Sequence, upto: int) -> None:
    """As if steps had computed everything below `upto` and come back."""
    assert kv.grow(seq, upto) is not None
    seq.num_planned = seq.num_computed = upto
    kv.upkeep(seq)


def start(kv: KVManager, seq: Sequence) -> int:
    hit = kv.match(seq)
    kv.open(seq, hit)
    return hit.length


def test_a_prefix_is_found_after_it_was_settled_and_not_before() -> None:
    kv = manager([FULL])
    a = sequence()
    start(kv, a)
    kv.grow(a, 20)
    a.num_planned = 20
    assert kv.match(sequence()).length == 0
    compute(kv, a, 20)
    hit = kv.match(sequence())
    assert hit.length == 16, "20 tokens are five blocks, but one token must be left to compute"
    assert hit.tables == [a.tables[0][:4]]
    assert kv.match(sequence(21)).length == 20
    assert kv.match(sequence(20, first=1)).length == 0


def test_a_hit_keeps_blocks_from_being_reused() -> None:
    kv = manager([FULL], num_blocks=8)
    a = sequence()
    start(kv, a)
    compute(kv, a, 20)
    kv.release(a)
    b = sequence(21)
    hit = kv.match(b)
    assert kv.num_revived(hit) == 5 and kv.num_free == 7
    kv.open(b, hit)
    assert kv.num_free == 2
    kv.check([b])


def test_the_end_of_a_sequence_is_reused_before_its_beginning() -> None:
    kv = manager([FULL], num_blocks=6)
    a = sequence()
    start(kv, a)
    compute(kv, a, 20)
    kv.release(a)
    other = sequence(8, first=50)
    start(kv, other)
    kv.grow(other, 8)
    assert kv.match(sequence()).length == 12


def test_growth_is_all_or_nothing() -> None:
    kv = manager([FULL, WINDOW], num_blocks=6)
    a = sequence()
    start(kv, a)
    assert kv.missing(a, 12) == 6
    assert kv.grow(a, 12) is None
    assert kv.num_free == 5 and a.tables == [[], []]
    assert kv.grow(a, 8) == [(0, a.tables[0]), (1, a.tables[1])]
    assert a.limit == 8


def test_blocks_behind_a_window_come_back_but_stay_findable() -> None:
    kv = manager([FULL, WINDOW])
    a = sequence(40)
    start(kv, a)
    compute(kv, a, 30)
    # a query at 30 reads positions 25.. of the window: blocks 0-5 are behind it
    assert [b == NULL_BLOCK for b in a.tables[1]] == [True] * 6 + [False] * 2
    assert all(b != NULL_BLOCK for b in a.tables[0])
    hit = kv.match(sequence(40))
    assert hit.length == 28
    assert hit.tables[1][:5] == [NULL_BLOCK] * 5
    kv.check([a])


def test_a_hit_is_as_long_as_every_group_allows() -> None:
    kv = manager([FULL, WINDOW])
    a = sequence(40)
    start(kv, a)
    compute(kv, a, 36)
    lost = kv.index.find(1, a.keys[7])  # the window's block for positions 28..31
    assert lost is not None
    kv.index.forget(lost)
    hit = kv.match(sequence(40))
    # 36 needs 31.., 32 needs 27..; 28 needs 23..27: blocks 5 and 6, which are there
    assert hit.length == 28
    kv.index.forget(a.tables[0][3])
    # a full group has a gap at 12..15, and 12 needs the window's 7..11
    assert kv.match(sequence(40)).length == 12


def test_a_gap_in_a_full_group_ends_a_hit() -> None:
    kv = manager([FULL])
    a = sequence(40)
    start(kv, a)
    compute(kv, a, 36)
    kv.index.forget(a.tables[0][2])
    assert kv.match(sequence(40)).length == 8


def test_groups_of_different_block_sizes_agree_on_a_length() -> None:
    kv = manager([FULL, FullKV(1, 4, 4)])
    assert kv.sizes == [4, 8]
    a = sequence(40)
    start(kv, a)
    compute(kv, a, 30)
    assert kv.match(sequence(40)).length == 24


def test_siblings_share_full_blocks_and_copy_the_partial_one() -> None:
    kv = manager([FULL])
    parent, child = sequence(10), sequence(10)
    start(kv, parent)
    kv.grow(parent, 10)
    assert kv.fork_cost(10) == 1 and kv.fork_cost(12) == 0
    copies = kv.fork(parent, child, 10)
    assert child.tables[0][:2] == parent.tables[0][:2]
    assert copies == [(parent.tables[0][2], child.tables[0][2])] and copies[0][0] != copies[0][1]
    kv.check([parent, child], [copies[0][0]])
    kv.release(parent)
    assert kv.pool.refs[copies[0][0]] == 1, "the source waits for its copy"
    kv.copied([copies[0][0]], after_step=0)
    assert kv.num_deferred == 1
    kv.retire(0)
    kv.check([child])
    kv.release(child)
    assert kv.num_free == 39


def test_blocks_of_a_step_in_flight_come_back_with_its_result() -> None:
    kv = manager([FULL])
    a = sequence(10)
    start(kv, a)
    kv.grow(a, 10)
    a.last_step = 3
    kv.release(a)
    assert kv.num_free == 36 and kv.num_deferred == 3
    kv.retire(2)
    assert kv.num_free == 36
    kv.retire(3)
    assert kv.num_free == 39 and kv.num_deferred == 0


def test_reset_forgets_prefixes_and_disturbs_nobody() -> None:
    kv = manager([FULL])
    a = sequence(20)
    start(kv, a)
    compute(kv, a, 16)
    kv.reset()
    assert kv.match(sequence(20)).length == 0
    compute(kv, a, 20)
    kv.check([a])
    assert kv.match(sequence(20)).length == 0, "what comes after a forgotten block is of no use alone"


def test_without_prefix_caching_nothing_is_kept() -> None:
    kv = manager([FULL], caching=False)
    a = sequence(20)
    start(kv, a)
    compute(kv, a, 20)
    kv.release(a)
    assert len(kv.pool.cached) == 0 and kv.match(sequence(20)).length == 0 and a.keys == []


def test_check_finds_a_lost_reference() -> None:
    kv = manager([FULL])
    a = sequence(20)
    start(kv, a)
    kv.grow(a, 20)
    with pytest.raises(AssertionError, match="held"):
        kv.check([])
