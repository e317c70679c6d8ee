"""The Triton kernel for few rows against the library, alone and with norms, activation and residual folded in.

On a GPU in two dtypes, elsewhere float32 in the interpreter.
"""

from dataclasses import replace

import pytest
import torch

from tests.kernels.triton_here import DEVICE
from vllm.ops.fold import CASES, Folded, fold, folded_linear, folded_linear_mul, linear_fold
from vllm.ops.linear import linear
from vllm.ops.linear_fp8 import Fp8Weight, quantize_weight, restore_weight
from vllm.ops.quantize import Intake, quantize, restore
from vllm.ops.triton.linear import (
    few,
    fold_triton,
    folded_linear_mul_triton,
    folded_linear_triton,
    linear_fold_triton,
    linear_triton,
)
from vllm.ops.triton.linear_hopper import HAS_COPY_ENGINE
from vllm.ops.triton.small import empty_small
from vllm.ops.triton.tiles import Tile, most_rows, tile_of

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
DTYPES = (torch.bfloat16, torch.float16) if DEVICE == "cuda" else (torch.float32,)


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def close(got: torch.Tensor, want: torch.Tensor, tol: float) -> None:
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert got.shape == want.shape and error <= tol, f"{error:.2e}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("splits", [1, 2, 4])
@pytest.mark.parametrize("case", [(1, 512, 96), (5, 776, 40), (32, 1024, 136)], ids=str)
def test_few_rows(case, splits, dtype):
    torch.manual_seed(0)
    rows, inputs, outputs = case
    x = random(rows, 2 * inputs, dtype=dtype)[:, :inputs]
    w, b = random(outputs, inputs, dtype=dtype), random(outputs, dtype=dtype)
    tile = Tile(64, 128, splits, 3)
    for bias in (None, b, None):  # a call leaves its tickets as it found them
        got = few(x, w, tile, bias=bias)
        want = torch.nn.functional.linear(x.double(), w.double(), None if bias is None else bias.double())
        assert got.dtype == dtype
        close(got, want, linear.tol.of(dtype))
        assert torch.equal(got, few(x, w, tile, bias=bias))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", ["lone", "hopper"])
def test_every_way(way, dtype):
    """One or two rows by themselves; where there is no copy engine its twin runs."""
    torch.manual_seed(0)
    for rows, inputs, outputs in ((1, 320, 96), (2, 512, 70)) if way == "lone" else ((3, 512, 128), (20, 1024, 256)):
        h, w, b = (
            random(rows, inputs, dtype=dtype),
            random(outputs, inputs, dtype=dtype) / 8,
            random(outputs, dtype=dtype),
        )
        tile = Tile(4, inputs, 1, 1, 4, "lone") if way == "lone" else Tile(64, 128, 2, 3, 4, "hopper")
        f = fold(h, torch.rand(inputs, device=DEVICE) + 0.5)
        f = Folded(f.hidden, f.scaled, torch.cat([f.squares / 5] * 5))
        close(
            few(f.scaled, w, tile, bias=b, folded=f, eps=1e-5),
            folded_linear(f, 1e-5, w, b),
            folded_linear.tol.of(dtype),
        )
        got = few(f.scaled, w, tile, folded=f, eps=1e-5, act=True)
        close(got, folded_linear_mul(f, 1e-5, w), folded_linear_mul.tol.of(dtype))
        stream, after = random(rows, outputs, dtype=dtype), torch.rand(outputs, device=DEVICE) + 0.5
        want = linear_fold(h, w, stream.clone(), after)
        scaled, sums = torch.empty_like(stream), torch.empty(-(-outputs // tile.bn), rows, device=DEVICE)
        few(h, w, tile, out=stream, following=(after, scaled, sums))
        for mine, theirs in ((stream, want.hidden), (scaled, want.scaled), (sums.sum(0), want.squares.sum(0))):
            close(mine, theirs, linear_fold.tol.of(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_norms_fold_into_the_maps_around_them(case, dtype):
    torch.manual_seed(0)
    rows, inputs, outputs = case
    outputs += outputs % 2
    h, w, b = random(rows, inputs, dtype=dtype), random(outputs, inputs, dtype=dtype) / 8, random(outputs, dtype=dtype)
    weight = torch.rand(inputs, device=DEVICE) + 0.5
    f, want = fold_triton(h, weight), fold(h, weight)
    for got, expected in ((f.hidden, h), (f.scaled, want.scaled), (f.squares.sum(0), want.squares.sum(0))):
        close(got, expected, fold.tol.of(dtype))
    ids = torch.arange(rows - 1, -1, -1, device=DEVICE)
    backwards, want = fold_triton(h, weight, ids_T=ids), fold(h, weight, ids_T=ids)
    assert torch.equal(backwards.hidden, h.flip(0))
    for got, expected in ((backwards.scaled, want.scaled), (backwards.squares.sum(0), want.squares.sum(0))):
        close(got, expected, fold.tol.of(dtype))
    f = Folded(f.hidden, f.scaled, torch.cat([f.squares / 3] * 3))
    close(folded_linear_triton(f, 1e-5, w, b), folded_linear(f, 1e-5, w, b), folded_linear.tol.of(dtype))
    close(folded_linear_mul_triton(f, 1e-5, w), folded_linear_mul(f, 1e-5, w), folded_linear_mul.tol.of(dtype))
    stream, after = random(rows, outputs, dtype=dtype), torch.rand(outputs, device=DEVICE) + 0.5
    want = linear_fold(h, w, stream.clone(), after)
    f = linear_fold_triton(h, w, stream, after)
    assert f.hidden is stream, "the sum takes the place of the stream"
    for got, expected in ((stream, want.hidden), (f.scaled, want.scaled), (f.squares.sum(0), want.squares.sum(0))):
        close(got, expected, linear_fold.tol.of(dtype))


def test_who_does_what():
    w = torch.randn(64, 32, device=DEVICE)
    x = torch.randn(3, 32, device=DEVICE)
    assert torch.equal(linear_triton(x, w), torch.nn.functional.linear(x, w)), "float32 is the library's"
    assert tile_of(28672, 4096, 300) is None and tile_of(28672, 4096, 32, must=True, act=True) is not None
    large = [(6144, 4096, False), (4096, 4096, False), (28672, 4096, True), (4096, 14336, False)]
    small = [(4096, 1024, False), (1024, 2048, False), (6144, 1024, True), (1024, 3072, False)]
    assert most_rows([(*m, False) for m in large]) == 64 and most_rows([(*m, False) for m in small]) == 32
    assert most_rows([(*m, True) for m in large]) == 128
    assert most_rows([(99, 64, False, False)]) == most_rows([(99, 64, False, True)]) == 32


@pytest.mark.skipif(DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9), reason="no e4m3")
@pytest.mark.parametrize("case", [(1, 512, 96), (1, 384, 128), (5, 512, 128), (20, 512, 128), (40, 384, 192)], ids=str)
@pytest.mark.parametrize("way", ["lone", "plain", "hopper"])
def test_e4m3_weights(way, case):
    """Folded maps whose weights have 8 bits and a scale per row."""
    torch.manual_seed(0)
    rows, inputs, outputs = case
    dtype = DTYPES[0]
    if (way == "lone" and rows > 2) or (way == "hopper" and outputs % 128):
        pytest.skip("is not asked for such")
    tile = {
        "lone": Tile(4, inputs, 1, 1, 4, "lone"),
        "plain": Tile(32, 64, 3, 2),
        "hopper": Tile(64, 128, 2 if inputs % 256 == 0 else 1, 3, 4, "hopper"),
    }[way]
    h, b = random(rows, inputs, dtype=dtype), random(outputs, dtype=dtype)
    packed = Fp8Weight(*quantize_weight(random(outputs, inputs, dtype=dtype) / 8), Intake())
    f = fold(h, torch.rand(inputs, device=DEVICE) + 0.5)
    with_rates, tol = {"rates": packed.scale, "tile": tile}, 2e-2
    # why: only the kernel with the copy engine shrinks its inputs, and rounds them once where the reference does twice
    stored = packed if way == "hopper" and HAS_COPY_ENGINE else restore_weight(packed.data_OE, packed.scale).to(dtype)
    got = few(f.scaled, packed.data_OE, bias=b, folded=f, eps=1e-5, **with_rates)
    close(got, folded_linear(f, 1e-5, stored, b), tol)
    got = few(f.scaled, packed.data_OE, folded=f, eps=1e-5, act=True, **with_rates)
    close(got, folded_linear_mul(f, 1e-5, stored), 3 * tol)
    stream, after = random(rows, outputs, dtype=dtype), torch.rand(outputs, device=DEVICE) + 0.5
    want = linear_fold(h, stored, stream.clone(), after)
    scaled, sums = torch.empty_like(stream), torch.empty(-(-outputs // tile.bn), rows, device=DEVICE)
    few(h, packed.data_OE, out=stream, following=(after, scaled, sums), **with_rates)
    for mine, theirs in ((stream, want.hidden), (scaled, want.scaled), (sums.sum(0), want.squares.sum(0))):
        close(mine, theirs, tol)


@pytest.mark.skipif(DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9), reason="no e4m3")
@pytest.mark.parametrize("case", [(1, 512, 256), (5, 1024, 256), (20, 512, 512), (60, 768, 256)], ids=str)
@pytest.mark.parametrize("group", [64, 128])
@pytest.mark.parametrize("tile", [(64, 128, 2), (128, 128, 1), (64, 256, 1), (64, 128, 1, 8), (32, 64, 3)], ids=str)
def test_tokens_in_e4m3(tile, group, case):
    """Both sides in 8 bits: who makes tokens for a map makes them so, whatever columns share a scale."""
    torch.manual_seed(0)
    (bn, bk, splits, warps), rows = (*tile, 4)[:4], case[0]
    if warps > 4 and rows < 20:
        pytest.skip("few tokens are not shared between groups of warps")
    if DEVICE == "cpu" and (rows != 5 or bk > 128 or warps > 4 or (bn > 64) != (group > 64)):
        pytest.skip("as the others where nothing runs by groups of warps")
    agrees(Tile(bn, bk, splits, 3, warps, "hopper" if bn > 32 else "plain"), group, *case)


@pytest.mark.skipif(not HAS_COPY_ENGINE, reason="where there is no copy engine its twin runs, which is tried above")
@pytest.mark.parametrize("case", [(128, 65, 512, 256), (64, 100, 1024, 512), (128, 128, 1536, 256)], ids=str)
@pytest.mark.parametrize("tile", [(64, 1, 3), (64, 2, 5), (128, 1, 4), (128, 4, 2)], ids=str)
def test_many_tokens_in_e4m3(tile, case):
    torch.manual_seed(0)
    agrees(Tile(tile[0], 128, *tile[1:], 4, "wide"), *case)


def agrees(cut: Tile, group: int, rows: int, inputs: int, outputs: int) -> None:
    """The maps around a norm, both sides in e4m3, against their references."""
    bn, dtype = cut.bn, DTYPES[0]
    packed = Fp8Weight(*quantize_weight(random(outputs, inputs, dtype=dtype) / 8), Intake())
    wide = (random(rows, inputs, dtype=dtype) * torch.rand(inputs, device=DEVICE)).to(dtype)
    x, b = quantize(wide, Intake(group=group)), random(outputs, dtype=dtype)
    f = Folded(wide, x, torch.stack([wide.float().square().sum(-1) / 3] * 3))
    options = {"rates": packed.scale, "tile": cut, "folded": f, "eps": 1e-5}
    close(few(x, packed.data_OE, bias=b, **options), folded_linear(f, 1e-5, packed, b), 1e-2)
    gated = {**options, "tile": replace(cut, splits=1) if cut.way == "wide" else cut}
    for _ in range(2):  # a call leaves its tickets as it found them
        got, want = few(x, packed.data_OE, act=True, **gated), folded_linear_mul(f, 1e-5, packed)
        assert got.scale.shape == (rows, outputs // 2 // bn) and got.dtype == dtype
        close(restore(got), restore(want), 0.07)
    stream, after = random(rows, outputs, dtype=dtype), torch.rand(outputs, device=DEVICE) + 0.5
    want = linear_fold(x, packed, stream.clone(), after)
    scaled, sums = empty_small(rows, outputs, bn, dtype, x.values.device), torch.empty(outputs // bn, rows).to(DEVICE)
    few(x, packed.data_OE, cut, rates=packed.scale, out=stream, following=(after, scaled, sums))
    close(stream, want.hidden, 1e-2)
    close(sums.sum(0), want.squares.sum(0), 1e-2)
    close(restore(scaled), (stream.float() * after), 0.04)


@pytest.mark.skipif(DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9), reason="no e4m3")
def test_a_stream_in_e4m3():
    torch.manual_seed(0)
    h, weight = random(5, 640, dtype=DTYPES[0]), torch.rand(640, device=DEVICE) + 0.5
    got, want = fold_triton(h, weight, True), fold(h, weight, True)
    assert torch.equal(got.scaled.scale, want.scaled.scale)
    close(restore(got.scaled), restore(want.scaled), 0.04)
    close(got.squares.sum(0), want.squares.sum(0), 1e-5)
