"""Shards and stages cover every parameter exactly once."""

import pytest

from vllm.parts.tensors import Piece, stage_layers


@pytest.mark.parametrize("layers", [1, 2, 5, 12, 61])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_stages_cover_the_layers_in_order(layers: int, size: int) -> None:
    if size > layers:
        with pytest.raises(ValueError, match="pipeline stages"):
            stage_layers(layers, size, 0)
        return
    ranges = [stage_layers(layers, size, r) for r in range(size)]
    assert [i for r in ranges for i in r] == list(range(layers))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize(("units", "size"), [(8, 1), (8, 2), (8, 8), (2, 4), (1, 8)])
def test_every_unit_is_held(units: int, size: int) -> None:
    piece = Piece(units * 16, units)
    held = [piece.shard(size, r) for r in range(size)]
    assert {row for start, length in held for row in range(start, start + length)} == set(range(units * 16))
    assert all(start % 16 == 0 and length % 16 == 0 for start, length in held)


@pytest.mark.parametrize(("units", "size"), [(3, 2), (4, 6), (6, 4)])
def test_uneven_split_is_refused(units: int, size: int) -> None:
    with pytest.raises(ValueError, match="evenly"):
        Piece(units * 16, units).shard(size, 0)


@pytest.mark.parametrize(("rows", "size"), [(50257, 2), (49155, 8), (101, 2), (101, 4), (5, 16), (128, 2)])
def test_a_vocabulary_is_padded_where_ranks_do_not_divide_it(rows: int, size: int) -> None:
    piece = Piece(rows, rows, is_padded=True)
    room = {piece.room(size, r) for r in range(size)}
    assert len(room) == 1, "gathered logits are of equal length"
    (each,) = room
    assert each * size == rows if rows % size == 0 else each % 64 == 0
    held = [piece.shard(size, r) for r in range(size)]
    assert [row for start, length in held for row in range(start, start + length)] == list(range(rows))
    assert all(start == min(r * each, rows) for r, (start, _) in enumerate(held)), "padding is behind all rows"
