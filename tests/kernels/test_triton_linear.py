"""The Triton kernel for few rows against the library: on a GPU in two dtypes, elsewhere float32 in the interpreter."""

import pytest
import torch

from tests.kernels.triton_here import DEVICE
from vllm.ops.linear import linear
from vllm.ops.triton.linear import linear_triton, skinny, tiles

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
DTYPES = (torch.bfloat16, torch.float16) if DEVICE == "cuda" else (torch.float32,)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("splits", [1, 2, 4])
@pytest.mark.parametrize("case", [(1, 512, 96), (5, 776, 40), (17, 1024, 64), (32, 2048, 136)], ids=str)
def test_few_rows(case, splits, dtype):
    torch.manual_seed(0)
    rows, inputs, outputs = case
    x = torch.randn(rows, 2 * inputs, device=DEVICE).to(dtype)[:, :inputs]
    w, b = torch.randn(outputs, inputs, device=DEVICE).to(dtype), torch.randn(outputs, device=DEVICE).to(dtype)
    for bias in (None, b, None):  # a call leaves its tickets as it found them
        got = skinny(x, w, bias, 32, 256, splits, 3)
        want = torch.nn.functional.linear(x.double(), w.double(), None if bias is None else bias.double())
        error = (got.double() - want).abs().max() / want.abs().max()
        assert got.dtype == dtype and error <= linear.tol.of(dtype), f"{error:.2e}"
        assert torch.equal(got, skinny(x, w, bias, 32, 256, splits, 3))


def test_who_does_what():
    w = torch.randn(64, 32, device=DEVICE)
    x = torch.randn(3, 32, device=DEVICE)
    assert torch.equal(linear_triton(x, w), torch.nn.functional.linear(x, w)), "float32 is the library's"
    assert tiles(6144, 1024)[2] == 1 and tiles(4096, 4096)[2] == 2 and tiles(1024, 3072)[2] == 4
