"""Every CPU kernel against float64 or its reference, on the op's CASES and both dtypes."""

import pytest
import torch

from vllm.ops import activation, draw, heads, linear, linear_int8, norm
from vllm.ops.table import Op, Target, select

pytest.importorskip("llvmlite")
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module", params=DTYPES, ids=str)
def chosen(request):
    """(dtype, the kernels chosen for it)."""
    torch.manual_seed(0)
    ops = select(Target("cpu", request.param), folders=("cpu",))
    return request.param, ops


def close(op: Op, got: torch.Tensor, want: torch.Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    error = (got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-6)
    assert error <= op.tol.of(dtype), f"{op.name}: {error:.2e}"


def test_all_ops_with_a_kernel_use_it(chosen):
    _, ops = chosen
    names = ops.names()
    for name in ("linear", "linear_int8", "rms_norm", "add_rms_norm", "activate", "activate_mul", "attention", "draw"):
        assert names[name] == "jit", (name, names[name])


@pytest.mark.parametrize("case", (*linear.CASES, (7, 130, 37), (2, 64, 15)), ids=str)
@pytest.mark.parametrize("bias", (False, True))
def test_linear(chosen, case, bias):
    dtype, ops = chosen
    tokens, inner, rows = case
    x, w = torch.randn(tokens, inner, dtype=dtype), torch.randn(rows, inner, dtype=dtype)
    b = torch.randn(rows, dtype=dtype) if bias else None
    packed = ops.helper("linear", "pack")(w.clone())
    want = x.double() @ w.double().T + (b.double() if bias else 0)
    got = ops.linear(x, packed, b)
    close(linear.linear, got, want.to(dtype), dtype)
    alone = torch.cat([ops.linear(x[t : t + 1], packed, b) for t in range(tokens)])
    assert torch.equal(got, alone), "a token's result depends on the other tokens"
    ids = torch.randint(0, rows, (9,))
    assert torch.equal(ops.helper("linear", "rows")(ids, packed), w[ids])
    logits = ops.helper("linear", "wide")(x, packed, b)
    assert logits.dtype == torch.float32
    assert (logits.double() - want).abs().max() <= 2e-5 * want.abs().max()


def test_packing_takes_no_second_copy():
    pack = select(Target("cpu", torch.bfloat16), folders=("cpu",)).helper("linear", "pack")
    w = torch.randn(64, 96, dtype=torch.bfloat16)
    assert pack(w).address == w.data_ptr()


def test_linear_keeps_odd_inner_sizes_right():
    ops = select(Target("cpu", torch.bfloat16), folders=("cpu",))
    x, w = torch.randn(3, 33, dtype=torch.bfloat16), torch.randn(8, 33, dtype=torch.bfloat16)
    assert torch.equal(ops.linear(x, ops.helper("linear", "pack")(w.clone()), None), linear.linear(x, w))


@pytest.mark.parametrize("case", (*linear_int8.CASES, (7, 132, 37)), ids=str)
def test_linear_int8(chosen, case):
    dtype, ops = chosen
    tokens, inner, rows = case
    x, w, b = (torch.randn(s, dtype=dtype) for s in ((tokens, inner), (rows, inner), (rows,)))
    packed = ops.helper("linear_int8", "pack")(w)
    got = ops.linear_int8(x, packed, b)
    close(linear_int8.linear_int8, got, linear_int8.linear_int8(x, linear_int8._pack(w), b), dtype)
    exact = x.double() @ w.double().T + b.double()
    assert (got.double() - exact).norm() / exact.norm() < 0.02
    alone = torch.cat([ops.linear_int8(x[t : t + 1], packed, b) for t in range(tokens)])
    assert torch.equal(got, alone), "a token's result depends on the other tokens"


def test_linear_int8_of_zero_rows(chosen):
    dtype, ops = chosen
    packed = ops.helper("linear_int8", "pack")(torch.zeros(32, 64, dtype=dtype))
    assert torch.equal(ops.linear_int8(torch.zeros(2, 64, dtype=dtype), packed, None), torch.zeros(2, 32, dtype=dtype))


@pytest.mark.parametrize("case", (*norm.CASES, (5, 901)), ids=str)
@pytest.mark.parametrize("affine", (False, True))
def test_norms(chosen, case, affine):
    dtype, ops = chosen
    x, r = torch.randn(case, dtype=dtype), torch.randn(case, dtype=dtype)
    w = torch.rand(case[1]) + 0.5 if affine else None
    close(norm.rms_norm, ops.rms_norm(x, w, 1e-6), norm.rms_norm(x, w, 1e-6), dtype)
    want, got = norm.add_rms_norm(x, r, w, 1e-6), ops.add_rms_norm(x, r.clone(), w, 1e-6)
    assert torch.equal(got[0], want[0])
    close(norm.add_rms_norm, got[1], want[1], dtype)


@pytest.mark.parametrize("act", activation.ACTIVATIONS)
def test_activations(chosen, act):
    dtype, ops = chosen
    x = torch.cat((torch.linspace(-30, 30, 1201), torch.randn(801))).repeat(3, 1).to(dtype)
    close(activation.activate, ops.activate(x, act), activation.activate(x, act), dtype)
    close(activation.activate_mul, ops.activate_mul(x, act), activation.activate_mul(x, act), dtype)


@pytest.mark.parametrize("case", heads.CASES, ids=str)
def test_split_heads(chosen, case):
    dtype, ops = chosen
    tokens, shape, normed, rotated = case
    x = torch.randn(tokens, (shape.heads + 2 * shape.kv_heads) * shape.dim, dtype=dtype)
    q_norm, k_norm = (torch.rand(shape.dim) + 0.5 for _ in range(2)) if normed else (None, None)
    angle = torch.randn(tokens, max(1, rotated // 2)) * 6
    cos, sin = (angle.cos(), angle.sin()) if rotated else (None, None)
    want = heads.split_heads(x.clone(), shape, q_norm, k_norm, cos, sin)
    for a, b in zip(ops.split_heads(x.clone(), shape, q_norm, k_norm, cos, sin), want, strict=True):
        close(heads.split_heads, a, b, dtype)


@pytest.mark.parametrize("case", (*draw.CASES, (2000, 37)), ids=str)
def test_draw_is_the_reference(case):
    ops = select(Target("cpu", torch.float32), folders=("cpu",))
    lines, vocab = case
    torch.manual_seed(1)
    logits = torch.randn(lines, vocab) * 4
    logits[torch.rand(lines, vocab) < 0.2] = float("-inf")
    keys = draw.noise_keys(torch.randint(-(2**62), 2**62, (lines,)), torch.arange(lines))
    assert torch.equal(ops.draw(logits, keys), draw.draw(logits, keys))


def test_draw_follows_the_softmax():
    """Chi-square over 40,000 draws from 64 tokens of a large vocabulary; the rest is forbidden."""
    ops = select(Target("cpu", torch.float32), folders=("cpu",))
    logits = torch.full((1, 128_000), float("-inf"))
    ids = torch.arange(64) * 1999
    logits[0, ids] = torch.linspace(0, 3, 64)
    counts = torch.zeros(64)
    for first in range(0, 40_000, 500):
        keys = draw.noise_keys(torch.arange(first, first + 500), torch.zeros(500, dtype=torch.int64))
        got = ops.draw(logits.expand(500, -1), keys)
        counts += torch.bincount(got // 1999, minlength=64)
        assert bool((got % 1999 == 0).all())
    want = torch.softmax(torch.linspace(0, 3, 64), 0) * 40_000
    assert ((counts - want) ** 2 / want).sum() < 110, "64 bins: 1 in 5000 by chance"
