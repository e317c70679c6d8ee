"""Every op's reference, and its deterministic twin, against float64 in the plainest way, over the op's own CASES."""

import pytest
import torch

from tests.unit.ops import dense
from tests.unit.ops.attention_cases import RAGGED, SHAPES, make_case
from vllm.ops import activation, heads, linear, moe, norm, rope, softcap, tiled
from vllm.ops.attention import attention

F32, BF16 = torch.float32, torch.bfloat16
assert tiled.ROWS == 16
KERNELS = pytest.mark.parametrize("kernel", ["reference", "tiled"])
DTYPES = pytest.mark.parametrize("dtype", [F32, BF16], ids=["f32", "bf16"])


def _randn(*shape, seed=0, dtype=F32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@DTYPES
@pytest.mark.parametrize(("tokens", "dim"), norm.CASES)
def test_norms(tokens, dim, dtype):
    x, r, w, b = _randn(tokens, dim, dtype=dtype), _randn(tokens, dim, seed=1, dtype=dtype), _randn(dim), _randn(dim)
    rms, tol = norm.rms_norm, norm.rms_norm.tol.of(dtype)
    dense.assert_close(rms(x, w, 1e-6), dense.rms(x.double(), w.double(), 1e-6), tol)
    dense.assert_close(rms(x, None, 1e-6), dense.rms(x.double(), 1.0, 1e-6), tol)
    s, y = norm.add_rms_norm(x.clone(), r.clone(), w, 1e-6)
    assert torch.equal(s, r + x)
    dense.assert_close(y, dense.rms(s.double(), w.double(), 1e-6), tol)
    wide = x.double()
    flat = (wide - wide.mean(-1, keepdim=True)) / torch.sqrt(wide.var(-1, keepdim=True, unbiased=False) + 1e-5)
    dense.assert_close(norm.layer_norm(x, w, b, 1e-5), flat * w.double() + b.double(), tol)
    assert rms(x, w, 1e-6).dtype == dtype


@DTYPES
@KERNELS
@pytest.mark.parametrize(("tokens", "dim", "act"), activation.CASES)
def test_activations(tokens, dim, act, dtype, kernel):
    x = _randn(tokens, 2 * dim, dtype=dtype) * 3
    gate, up = x.double().chunk(2, -1)
    tol = activation.activate.tol.of(dtype)
    dense.assert_close(activation.activate_mul.kernels[kernel].run(x, act), dense.ACT[act](gate) * up, tol)
    dense.assert_close(activation.activate.kernels[kernel].run(x, act), dense.ACT[act](x.double()), tol)


@DTYPES
@KERNELS
@pytest.mark.parametrize(("tokens", "into", "out"), linear.CASES)
def test_linear(tokens, into, out, dtype, kernel):
    x, w, b = (
        _randn(tokens, into, dtype=dtype),
        _randn(out, into, seed=1, dtype=dtype),
        _randn(out, seed=2, dtype=dtype),
    )
    chosen = linear.linear.kernels[kernel]
    packed = chosen.helpers["pack"](w)
    expected = x.double() @ w.double().T
    tol = linear.linear.tol.of(dtype)
    dense.assert_close(chosen.run(x, packed), expected, tol)
    dense.assert_close(chosen.run(x, packed, b), expected + b.double(), tol)


@DTYPES
@pytest.mark.parametrize(("tokens", "num", "dim", "turned", "interleaved"), rope.CASES)
def test_rope(tokens, num, dim, turned, interleaved, dtype):
    x, angles = _randn(tokens, num, dim, dtype=dtype), _randn(tokens, turned // 2, seed=1) * 50
    got = rope.rope(x, angles.cos(), angles.sin(), interleaved)
    dense.assert_close(
        got, dense.rotate(x.double(), angles.double(), turned, interleaved), 1e-5 if dtype is F32 else 1e-2
    )


@DTYPES
@pytest.mark.parametrize(("tokens", "shape", "normed", "turned"), heads.CASES)
def test_split_heads(tokens, shape, normed, turned, dtype):
    total = shape.heads + 2 * shape.kv_heads
    qkv = _randn(tokens, total * shape.dim, dtype=dtype)
    weights = (_randn(shape.dim, seed=1), _randn(shape.dim, seed=2)) if normed else (None, None)
    angles = _randn(tokens, turned // 2, seed=3) * 20 if turned else None
    cos, sin = (None, None) if angles is None else (angles.cos(), angles.sin())
    got = heads.split_heads(qkv, shape, *weights, cos, sin)
    parts = list(qkv.double().view(tokens, total, shape.dim).split((shape.heads, shape.kv_heads, shape.kv_heads), 1))
    for i in (0, 1):
        parts[i] = dense.rms(parts[i], weights[i].double(), shape.eps) if normed else parts[i]
    if shape.clip is not None:
        parts = [x.clamp(-shape.clip, shape.clip) for x in parts]
    for i in (0, 1):
        parts[i] = dense.rotate(parts[i], angles.double(), turned, shape.interleaved) if turned else parts[i]
    for mine, expected in zip(got, parts, strict=True):
        dense.assert_close(mine, expected, 1e-5 if dtype is F32 else 2e-2)


NAMES = {id(lens): name for lens, name in zip(RAGGED, ("one", "mixed", "decodes", "long"), strict=True)}
ATTENTION = [("reference", shape, lens) for shape in SHAPES for lens in RAGGED]
# why: one long prompt is enough for a kernel that is slow with prompts
ATTENTION += [("tiled", shape, lens) for shape in SHAPES for lens in RAGGED[: 4 if shape is SHAPES[-1] else 3]]


@DTYPES
@pytest.mark.parametrize(
    ("kernel", "shape", "lens"),
    ATTENTION,
    ids=[f"{k}-h{s[0]}k{s[1]}d{s[2]}w{s[4]}p{s[7]}-{NAMES[id(n)]}" for k, s, n in ATTENTION],
)
def test_attention(kernel, shape, lens, dtype):
    case = make_case(shape, lens, attention.kernels[kernel], dtype)
    run = attention.kernels[kernel].run
    got = run(case.q, case.k, case.v, case.slab, case.batch, case.group, case.shape, case.sinks)
    start = 0
    for s, (query_len, _) in enumerate(lens):
        q = case.q[start : start + query_len].double()
        sinks = None if case.sinks is None else case.sinks.double()
        expected = dense.attend(q, case.keys[s].double(), case.values[s].double(), case.shape, sinks)
        dense.assert_close(got[start : start + query_len], expected, attention.tol.of(dtype))
        start += query_len


@DTYPES
@KERNELS
@pytest.mark.parametrize(("tokens", "dim", "num", "inter", "top", "renormalize"), moe.CASES)
@pytest.mark.parametrize("gated", [True, False])
def test_experts(tokens, dim, num, inter, top, renormalize, gated, dtype, kernel):
    x, logits = _randn(tokens, dim, dtype=dtype), _randn(tokens, num, seed=1)
    up = _randn(num, inter * (1 + gated), dim, seed=2, dtype=dtype) / dim**0.5
    down = _randn(num, dim, inter, seed=3, dtype=dtype) / inter**0.5
    weights, chosen = moe.route(logits, top, renormalize)
    got = moe.experts.kernels[kernel].run(x, weights, chosen, up, down, "silu")
    share = logits.double().softmax(-1)
    expected = torch.zeros(tokens, dim, dtype=torch.float64)
    for t in range(tokens):
        best = share[t].argsort(descending=True)[:top]
        total = share[t][best].sum() if renormalize else 1.0
        for e in best.tolist():
            h = up[e].double() @ x[t].double()
            h = dense.ACT["silu"](h[:inter]) * h[inter:] if gated else dense.ACT["silu"](h)
            expected[t] += share[t, e] / total * (down[e].double() @ h)
    dense.assert_close(got, expected, moe.experts.tol.of(dtype))


def test_embedding_gives_rows():
    table = _randn(50, 8)
    ids = torch.tensor([3, 3, 49, 0])
    assert torch.equal(linear.embedding(ids, table), table[ids])


@KERNELS
@pytest.mark.parametrize(("lines", "vocab", "cap"), softcap.CASES)
def test_softcap(lines, vocab, cap, kernel):
    x = _randn(lines, vocab) * 40
    got = softcap.softcap.kernels[kernel].run(x, cap)
    dense.assert_close(got, cap * torch.tanh(x.double() / cap), softcap.softcap.tol.f32)
