"""The block pool: references, the order of reuse, and keys that live until a block is taken again."""

import pytest

from vllm.kv.pool import BlockPool
from vllm.kv.prefix import PrefixIndex


def make(num_blocks: int = 5) -> BlockPool:
    return BlockPool(num_blocks, PrefixIndex(1))


def test_the_null_block_is_never_given_out() -> None:
    pool = make()
    assert sorted(pool.take(4)) == [1, 2, 3, 4]
    assert pool.num_free == 0


def test_more_than_there_is_cannot_be_taken() -> None:
    with pytest.raises(AssertionError, match="5 blocks wanted, 4 free"):
        make().take(5)


def test_a_block_is_free_when_its_last_reference_goes() -> None:
    pool = make()
    (block,) = pool.take(1)
    pool.share([block])
    pool.release([block])
    assert pool.num_free == 3
    pool.release([block])
    assert pool.num_free == 4
    with pytest.raises(AssertionError, match="freed twice"):
        pool.release([block])


def test_clean_blocks_go_before_cached_ones_and_the_oldest_cached_first() -> None:
    pool = make()
    a, b, c, d = pool.take(4)
    for i, block in enumerate((a, b, c)):
        pool.index.publish(0, bytes([i]), block)
    pool.release([b, a, c, d])
    assert pool.take(1) == [d]
    assert pool.take(1) == [b]
    assert pool.index.find(0, bytes([1])) is None, "the key went with the reuse"
    assert pool.index.find(0, bytes([0])) == a, "and the others stayed"


def test_a_hit_takes_a_cached_block_out_of_the_free_ones() -> None:
    pool = make()
    (block,) = pool.take(1)
    pool.index.publish(0, b"k", block)
    pool.release([block])
    pool.share([block])
    assert pool.num_free == 3
    assert block not in pool.take(3)
    pool.check()


def test_null_blocks_are_neither_shared_nor_released() -> None:
    pool = make()
    pool.share([0])
    pool.release([0])
    pool.check()


def test_forgetting_all_keeps_blocks_that_are_held() -> None:
    pool = make()
    held, cached = pool.take(2)
    for block in (held, cached):
        pool.index.publish(0, bytes([block]), block)
    pool.release([cached])
    pool.forget_all()
    assert len(pool.index) == 0 and pool.num_free == 3
    pool.release([held])
    pool.check()


def test_the_first_block_of_a_key_stays_and_a_block_has_one_key() -> None:
    index = PrefixIndex(2)
    index.publish(0, b"k", 1)
    index.publish(0, b"k", 2)
    index.publish(0, b"other", 1)
    index.publish(1, b"k", 3)
    assert (index.find(0, b"k"), index.find(0, b"other"), index.find(1, b"k")) == (1, None, 3)
    index.check()


@pytest.mark.parametrize("harm", ["free twice", "lost", "no key", "has a key"])
def test_check_finds_wrong_books(harm: str) -> None:
    pool = make()
    if harm == "free twice":
        pool.clean.append(pool.clean[0])
    elif harm == "lost":
        pool.clean.pop()
    elif harm == "no key":
        pool.cached[pool.clean.pop()] = None
    else:
        pool.index.publish(0, b"k", pool.clean[0])
    with pytest.raises(AssertionError):
        pool.check()
