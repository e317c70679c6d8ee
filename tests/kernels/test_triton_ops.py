"""The small Triton kernels against their references: on a GPU in every dtype, elsewhere float32 in the interpreter."""

import pytest
import torch

from tests.kernels.triton_here import DEVICE, DTYPES
from vllm.ops import activation, heads, norm
from vllm.ops.draw import draw, noise_keys
from vllm.ops.triton.activation import activate_mul_triton
from vllm.ops.triton.draw import draw_triton
from vllm.ops.triton.heads import split_heads_triton
from vllm.ops.triton.norm import add_rms_norm_triton, rms_norm_triton

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
MANY = (260, heads.HeadsShape(3, 1, 32, 1e-6, 0.9), True, 32)
"""Enough tokens for the kernel that works by halves."""
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def close(op, got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= max(op.tol.of(want.dtype), 4e-6), f"{error:.2e}"


@dtypes
@pytest.mark.parametrize("case", norm.CASES, ids=str)
def test_norms(case, dtype):
    torch.manual_seed(0)
    x, r, w = rand(*case, dtype=dtype), rand(*case, dtype=dtype), rand(case[1])
    close(norm.rms_norm, rms_norm_triton(x, w, 1e-6), norm.rms_norm(x, w, 1e-6))
    close(norm.rms_norm, rms_norm_triton(x, None, 1e-6), norm.rms_norm(x, None, 1e-6))
    want = norm.add_rms_norm(x, r, w, 1e-6)
    got = add_rms_norm_triton(x, r.clone(), w, 1e-6)
    close(norm.add_rms_norm, got[0], want[0]), close(norm.add_rms_norm, got[1], want[1])


@dtypes
@pytest.mark.parametrize("case", [c for c in activation.CASES if c[0] < 256 or DEVICE == "cuda"], ids=str)
def test_activations(case, dtype):
    torch.manual_seed(0)
    x = rand(case[0], 2 * case[1], dtype=dtype)
    close(activation.activate_mul, activate_mul_triton(x, case[2]), activation.activate_mul(x, case[2]))


@dtypes
@pytest.mark.parametrize("case", [*heads.CASES, MANY], ids=str)
def test_heads(case, dtype):
    torch.manual_seed(0)
    tokens, s, norms, turned = case
    qkv = rand(tokens, (s.heads + 2 * s.kv_heads) * s.dim, dtype=dtype)
    weights = (rand(s.dim), rand(s.dim)) if norms else (None, None)
    angles = rand(tokens, turned // 2)
    tables = (angles.cos(), angles.sin()) if turned else (None, None)
    want = heads.split_heads(qkv, s, *weights, *tables)
    for got, ref in zip(split_heads_triton(qkv, s, *weights, *tables), want, strict=True):
        close(heads.split_heads, got, ref)


@pytest.mark.parametrize(("lines", "vocab"), [(1, 1000), (3, 20000), (16, 4099)])
def test_draws_are_the_reference_s(lines, vocab):
    torch.manual_seed(0)
    logits = rand(lines, vocab) * 3
    logits[:, ::7] = float("-inf")
    seeds = torch.randint(-(2**62), 2**62, (lines,), device=DEVICE)
    keys = noise_keys(seeds, torch.arange(lines, device=DEVICE))
    assert torch.equal(draw_triton(logits, keys), draw(logits, keys))
    values, ids = logits.topk(64, -1)
    assert torch.equal(draw_triton(values, keys, ids), draw(values, keys, ids))
