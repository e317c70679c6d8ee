"""The Triton fp8 kernels against their references: on a GPU in every dtype, elsewhere float32 in the interpreter."""

import pytest
import torch

from tests.kernels.triton_here import DEVICE, DTYPES
from vllm.ops import linear_fp8 as lf
from vllm.ops import quantize as q
from vllm.ops.triton import linear_fp8 as kernels
from vllm.ops.triton import quantize as made
from vllm.ops.triton.linear_fp8_tiles import Tile, tile_of

HOPPER = DEVICE == "cuda" and torch.cuda.get_device_capability() >= (9, 0)
pytestmark = [
    pytest.mark.gpu_too,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(DEVICE == "cuda" and not HOPPER, reason="needs 8-bit floating-point products"),
]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
QUICK = [c for c in q.CASES if DEVICE == "cuda" or c[0] * c[1] < 2_000]


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def intakes(group: int) -> list[q.Intake]:
    return [q.Intake(group=group)] if group else [q.Intake(), q.Intake(static=torch.tensor(0.01, device=DEVICE))]


def same(got: q.Quantized, want: q.Quantized, exactly: bool = True) -> None:
    """Equal, or (behind a sum) a step apart in one value of two hundred."""
    assert got.dtype == want.dtype and got.scale.shape == want.scale.shape
    assert torch.allclose(got.scale, want.scale, rtol=1e-6 if exactly else 1e-2)
    apart = got.values.view(torch.uint8) != want.values.view(torch.uint8)
    assert apart.float().mean() <= (1e-3 if exactly else 0.02), f"{apart.float().mean():.4f}"
    assert (q.restore(got) - q.restore(want)).abs().max() <= 0.07 * q.restore(want).abs().max()


@dtypes
@pytest.mark.parametrize("case", QUICK, ids=str)
def test_quantize(case, dtype):
    torch.manual_seed(0)
    tokens, width, group = case
    x = rand(tokens, 2 * width, dtype=dtype)[:, :width] * 3
    x[0] = 0
    for intake in intakes(group):
        same(made.quantize_triton(x, intake), q.quantize(x, intake))


@dtypes
@pytest.mark.parametrize("case", QUICK, ids=str)
def test_fused(case, dtype):
    torch.manual_seed(0)
    tokens, width, group = case
    x, r, w = rand(tokens, width, dtype=dtype), rand(tokens, width, dtype=dtype), rand(width)
    for intake in intakes(group):
        same(made.rms_norm_quantize_triton(x, w, 1e-6, intake), q.rms_norm_quantize(x, w, 1e-6, intake), False)
        same(made.rms_norm_quantize_triton(x, None, 1e-6, intake), q.rms_norm_quantize(x, None, 1e-6, intake), False)
        want = q.add_rms_norm_quantize(x, r, w, 1e-6, intake)
        got = made.add_rms_norm_quantize_triton(x, r.clone(), w, 1e-6, intake)
        assert torch.equal(got[0], want[0])
        same(got[1], want[1], False)
        for act in ("silu", "gelu_tanh"):
            pair = torch.cat((x, r), -1)
            want = q.activate_mul_quantize(pair, act, intake)
            same(made.activate_mul_quantize_triton(pair, act, intake), want, False)


@pytest.mark.parametrize("rows", [1, 3])
def test_wide_activations(rows):
    torch.manual_seed(0)
    pair = rand(rows, 2 * 4500)
    pair[rows - 1, 4000:4500] *= 9
    want = q.activate_mul_quantize(pair, "silu", q.Intake())
    same(made.activate_mul_quantize_triton(pair, "silu", q.Intake()), want, False)


def packed(inputs: int, outputs: int, block: int, static: bool = False) -> lf.Fp8Weight:
    weight = rand(outputs, inputs)
    if block:
        scale = torch.rand(-(-outputs // block), -(-inputs // block), device=DEVICE) * 0.01 + 0.001
        return lf._pack_block(q.to_fp8(weight * 100), scale, (block, block))
    return lf._pack(*lf.quantize_weight(weight), torch.tensor(0.01, device=DEVICE) if static else None)


def close(op, got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    # why: products of e4m3 are added with 14 bits or so inside a tensor core
    assert error <= max(op.tol.of(want.dtype), 2e-3 if DEVICE == "cuda" else 0), f"{error:.2e}"


@dtypes
@pytest.mark.parametrize("splits", [1, 3] if DEVICE == "cuda" else [3])
@pytest.mark.parametrize("case", [(1, 512, 96, 0), (5, 776, 40, 0), (17, 1024, 64, 0), (20, 384, 72, 128)], ids=str)
def test_few_rows(case, splits, dtype):
    torch.manual_seed(0)
    tokens, inputs, outputs, block = case
    op = lf.linear_fp8_block if block else lf.linear_fp8
    for static in (False, True)[: 1 if block else 2]:
        weight = packed(inputs, outputs, block, static)
        x = q.quantize(rand(tokens, inputs, dtype=dtype), weight.intake)
        bias = rand(outputs, dtype=dtype)
        tile = Tile(16, 64, block or 256, splits, 4, 3)
        for b in (None, bias, None):  # a call leaves its tickets as it found them
            got = kernels.few(x, weight, b, tile)
            close(op, got, op(x, weight, b))
            assert torch.equal(got, kernels.few(x, weight, b, tile))


CASES = [*((*c, 0) for c in lf.CASES), *lf.BLOCK_CASES]


@dtypes
@pytest.mark.parametrize("case", [c for c in CASES if DEVICE == "cuda" or c[0] <= 5], ids=str)
def test_any_rows(case, dtype):
    torch.manual_seed(0)
    tokens, inputs, outputs, block = case
    op, run = lf.linear_fp8, kernels.linear_fp8_triton
    if block:
        op, run = lf.linear_fp8_block, kernels.linear_fp8_block_triton
    weight, x, bias = packed(inputs, outputs, block), rand(tokens, inputs, dtype=dtype), rand(outputs, dtype=dtype)
    close(op, run(x, weight, bias), op(x, weight, bias))
    close(op, run(q.quantize(x, weight.intake), weight), op(x, weight))


@dtypes
@pytest.mark.parametrize("case", [(40, 200, 72, 0), (33, 256, 160, 128)], ids=str)
def test_many_rows(case, dtype):
    torch.manual_seed(0)
    tokens, inputs, outputs, block = case
    op, weight = lf.linear_fp8_block if block else lf.linear_fp8, packed(inputs, outputs, block)
    x, bias = q.quantize(rand(tokens, inputs, dtype=dtype), weight.intake), rand(outputs, dtype=dtype)
    close(op, kernels.many(x, weight, bias, 64, 64, 4, 3), op(x, weight, bias))


def test_tiles_are_those_of_similar_weights():
    assert tile_of(1, 28672, 4096).splits == 1 and tile_of(1, 4096, 4096).splits > 1
    assert tile_of(1, 20000, 4096) == tile_of(3, 28672, 4096) and tile_of(17, 4096, 4096).bm == 32
    assert tile_of(8, 4096, 4096, 128).bk == 128 and tile_of(100_000, 64, 64) is None
