"""KV plans: how layers are grouped, and the arithmetic of what fits."""

import pytest

from vllm.errors import CapacityError
from vllm.kv.groups import blocks_needed, bytes_needed, bytes_per_token, make_kv_plan, max_tokens_that_fit
from vllm.protocol.kv import FullKV, KVKind, KVPlan, LatentKV, SlidingKV

FULL, SLIDING = FullKV(8, 128, 128), SlidingKV(8, 128, 128, 1024)


def plan(kinds: list[KVKind], num_blocks: int = 100, block_size: int = 16, **more: int) -> KVPlan:
    return make_kv_plan(kinds, "bfloat16", num_blocks=num_blocks, block_size=block_size, **more)


def test_equal_layers_are_one_group() -> None:
    p = plan([FULL] * 32)
    assert len(p.groups) == 1 and p.num_slabs == 32
    assert p.block_bytes == 16 * 8 * 256 * 2
    assert p.total_bytes == 100 * 32 * p.block_bytes
    assert [p.place(i) for i in (0, 31)] == [(0, 0), (0, 31)]


def test_every_layer_has_one_place_and_no_two_share_one() -> None:
    kinds = [FULL if i % 6 == 5 else SLIDING for i in range(26)]  # as Gemma 3 1B: 22 sliding, 4 full
    p = plan(kinds)
    places = [p.place(i) for i in range(26)]
    assert len(set(places)) == 26 and all(slab < p.num_slabs for _, slab in places)
    for i, (g, _) in enumerate(places):
        assert p.groups[g].kind == kinds[i]
    assert p.num_slabs == 4 and len(p.groups) == 7


def test_groups_of_a_kind_are_even() -> None:
    p = plan([SLIDING] * 10 + [FULL] * 4)
    sizes = sorted(len(g.layers) for g in p.groups if g.kind == SLIDING)
    assert max(sizes) - min(sizes) <= 2 and sum(sizes) == 10


def test_narrow_kinds_get_longer_blocks_of_equal_bytes() -> None:
    p = plan([FULL, LatentKV(576), FullKV(2, 128, 128)])
    by_kind = {g.kind: g.block_size for g in p.groups}
    assert by_kind == {FULL: 16, LatentKV(576): 32, FullKV(2, 128, 128): 64}
    for g in p.groups:
        assert g.block_size * g.kind.elements_per_token() * 2 <= p.block_bytes  # type: ignore[union-attr]


def test_a_budget_is_kept_and_used() -> None:
    budget = 64 << 20
    p = make_kv_plan([FULL] * 4, "float32", budget_bytes=budget, block_size=16)
    assert p.total_bytes <= budget < p.total_bytes + p.num_slabs * p.block_bytes


def test_a_budget_too_small_says_so() -> None:
    with pytest.raises(CapacityError, match="at least two blocks of 4\\.0 MiB"):
        make_kv_plan([FULL] * 32, "float32", budget_bytes=4 << 20, block_size=16)


def test_tokens_that_fit() -> None:
    p = plan([FULL] * 2, num_blocks=11)
    assert max_tokens_that_fit(p) == 160
    assert max_tokens_that_fit(p, num_sequences=3) == 48
    assert blocks_needed(p, 160) == 10 and blocks_needed(p, 161) == 11


def test_a_window_bounds_what_a_sequence_holds() -> None:
    p = plan([SlidingKV(8, 128, 128, 32)], num_blocks=11)
    assert blocks_needed(p, 20) == 2
    assert blocks_needed(p, 10**6) == 3  # 32 tokens lie in three blocks of 16 at most
    assert blocks_needed(p, 10**6, num_query=64) == 7
    assert max_tokens_that_fit(p) > 10**9
    mixed = plan([SlidingKV(8, 128, 128, 32), FULL], num_blocks=11)
    assert max_tokens_that_fit(mixed) == (10 - 3) * 16


@pytest.mark.parametrize("tokens", [1, 16, 17, 500, 5000])
def test_bytes_needed_hold_what_they_promise(tokens: int) -> None:
    p = plan([FULL if i % 2 else SLIDING for i in range(6)])
    again = make_kv_plan(
        [FULL if i % 2 else SLIDING for i in range(6)], "bfloat16", budget_bytes=bytes_needed(p, tokens)
    )
    assert max_tokens_that_fit(again) >= tokens


def test_bytes_per_token_count_only_what_grows() -> None:
    assert bytes_per_token(plan([FULL] * 4)) == 4 * 8 * 256 * 2
    assert bytes_per_token(plan([FULL] * 4 + [SLIDING] * 4)) == 4 * 8 * 256 * 2
    assert bytes_per_token(plan([SLIDING] * 4)) == 0
