import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm.util.arith import cdiv, human_bytes, largest, parse_size, round_down, round_up


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_division_and_rounding(n, m):
    assert (cdiv(n, m) - 1) * m < n <= cdiv(n, m) * m
    assert round_down(n, m) <= n <= round_up(n, m)
    assert round_up(n, m) - round_down(n, m) in (0, m)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        (4096, 4096),
        ("1k", 1000),
        ("1K", 1024),
        ("2M", 2 * 1024**2),
        ("1.5G", 3 * 1024**3 // 2),
        ("25.6k", 25600),
        ("4GiB", 4 * 1024**3),
        ("4 GB", 4 * 1000**3),
        ("0", 0),
        ("7b", 7),
    ],
)
def test_parse_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1.5", "0.0001k", "1e3", "nan", "1 2"])
def test_parse_size_refuses(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_human_bytes():
    assert [human_bytes(n) for n in (0, 1023, 1024, 1536, 5 * 2**30, -2048)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 GiB",
        "-2.0 KiB",
    ]


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(-60, 120))
def test_the_largest_that_holds(low, width, limit):
    found = largest(low, low + width, lambda n: n <= limit)
    assert found == max(low, min(low + width, limit))
