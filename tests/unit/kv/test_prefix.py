"""Content keys: equal exactly where KV may be shared."""

import pytest

from vllm.kv.prefix import KeyChain, root_key
from vllm.protocol.request import EmbedSpan, Request, Span, TokenSpan
from vllm.protocol.sequence import Sequence
from vllm.sampling_params import SamplingParams


def keys(*spans: Span, block_size: int = 4, isolate: bool = False, **fields: object) -> list[bytes]:
    request = Request("r", spans, SamplingParams(), (0,), 1000, frozenset(), **fields)  # type: ignore[arg-type]
    seq = Sequence(request, 0, 0)
    return KeyChain(block_size, isolate).extend(seq, len(seq.tokens))


def tokens(*ids: int) -> TokenSpan:
    return TokenSpan(ids)


def test_keys_cover_whole_blocks_and_chain() -> None:
    a, b = keys(tokens(*range(9))), keys(tokens(*range(8), 100, 101))
    assert len(a) == 2 and a == b
    c = keys(tokens(9, *range(1, 8)))
    assert c[0] != a[0] and c[1] != a[1], "a difference in the first block shows in every later key"


def test_how_a_text_is_cut_into_spans_or_calls_does_not_matter() -> None:
    assert keys(tokens(1, 2, 3), tokens(4, 5, 6, 7, 8)) == keys(tokens(1, 2, 3, 4, 5, 6, 7, 8))
    request = Request("r", (tokens(*range(12)),), SamplingParams(), (0,), 100, frozenset())
    seq, chain = Sequence(request, 0, 0), KeyChain(4, False)
    for n in (1, 4, 9, 12):
        chain.extend(seq, n)
    assert seq.keys == keys(tokens(*range(12)))


@pytest.mark.parametrize(
    "other",
    [{"cache_salt": "s"}, {"features": {"adapter_id": 1}}, {"features": {"adapter_id": "1"}}],
    ids=str,
)
def test_salt_and_adapter_keep_prefixes_apart(other: dict[str, object]) -> None:
    assert set(keys(tokens(1, 2, 3, 4))).isdisjoint(keys(tokens(1, 2, 3, 4), **other))


def test_tenants_share_unless_they_are_isolated() -> None:
    text = tokens(1, 2, 3, 4)
    assert keys(text, tenant="a") == keys(text, tenant="b")
    assert keys(text, tenant="a", isolate=True) != keys(text, tenant="b", isolate=True)


def test_fields_of_the_root_cannot_run_into_each_other() -> None:
    def root(salt: str, tenant: str) -> bytes:
        request = Request("r", (), SamplingParams(), (0,), 9, frozenset(), cache_salt=salt, tenant=tenant)
        return root_key(request, isolate_tenants=True)

    assert root("ab", "c") != root("a", "bc")


def test_embeddings_count_by_content_and_place() -> None:
    def image(mark: bytes, num_tokens: int = 4) -> EmbedSpan:
        return EmbedSpan(num_tokens, mark * 16, filler_id=7)

    plain = keys(tokens(1, 2, 7, 7, 7, 7, 3, 4))
    one = keys(tokens(1, 2), image(b"a"), tokens(3, 4))
    two = keys(tokens(1, 2), image(b"b"), tokens(3, 4))
    assert len({plain[0], one[0], two[0]}) == 3 and len({plain[1], one[1], two[1]}) == 3
    moved = keys(tokens(1, 2), tokens(7), image(b"a", 3), tokens(3, 4))
    assert moved[0] != one[0]
    assert keys(tokens(1, 2), image(b"a"), tokens(3, 5))[0] == one[0], "what comes later does not matter"


def test_a_long_image_is_in_every_block_it_covers() -> None:
    a = keys(EmbedSpan(12, b"a" * 16), tokens(1))
    b = keys(EmbedSpan(12, b"b" * 16), tokens(1))
    assert len(a) == 3 and set(a).isdisjoint(b)
