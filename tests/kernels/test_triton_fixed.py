"""Kernels of deterministic mode: near the reference, and the same bits for a token however many others there are."""

import itertools

import pytest
import torch

from tests.kernels.test_cpu_attention import Paged
from tests.kernels.test_triton_attention import CASES, LARGE, moved, on_device
from tests.kernels.triton_here import DEVICE, DTYPES, HAS_GPU
from vllm.ops.attention import attention
from vllm.ops.heads import HeadsShape, split_heads
from vllm.ops.linear import linear
from vllm.ops.moe import experts
from vllm.ops.table import Target, select
from vllm.ops.triton import attention_fixed, fixed
from vllm.ops.triton.moe import experts_fixed

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
EACH = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ROWS = (1, 3, 16, 64, 65, 128, 300, 1024, 1025, 2500) if HAS_GPU else (1, 64, 700)
SHAPES = [(100, 72), (64, 130)]
if HAS_GPU:
    SHAPES += [(384, 512), (331, 64), (6144, 4096), (4096, 14336), (1000, 640)]


def near(got: torch.Tensor, want: torch.Tensor, tol: float) -> None:
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= tol, f"{error:.2e}"


def same(got: torch.Tensor, want: torch.Tensor) -> bool:
    """To the bit; the interpreter's products are numpy's, which are only near."""
    return torch.equal(got, want) if HAS_GPU else bool((got - want).abs().max() <= 1e-5 * want.abs().max())


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


@EACH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_of_a_product_does_not_know_the_others(shape, dtype):
    torch.manual_seed(0)
    x, w, bias = random(max(ROWS), shape[1], dtype=dtype), random(*shape, dtype=dtype), random(shape[0], dtype=dtype)
    whole = fixed.linear_fixed(x, w, bias)
    near(whole, linear(x.double(), w.double(), bias.double()), linear.tol.of(dtype) * (4 if HAS_GPU else 1))
    for rows in ROWS:
        assert same(fixed.linear_fixed(x[:rows], w, bias), whole[:rows]), rows
        assert same(fixed.linear_fixed(x[-rows:], w, bias), whole[-rows:]), rows


@EACH
@pytest.mark.parametrize("case", [c for c in CASES if c[0] >= 16] + list(LARGE) if HAS_GPU else [CASES[6]], ids=str)
def test_attention_agrees_with_the_reference(case, dtype, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(attention_fixed, "_SPLIT", 64)
    queries, contexts = list(case[2]), list(case[3])
    p = on_device(Paged(case, dtype, garbage=0))
    have = [s for s, n in enumerate(contexts) if n]
    steps = [(have, [contexts[s] for s in have], [0] * len(have))] if have else []
    steps.append((list(range(len(queries))), queries, contexts))
    for seqs, nums, before in steps:
        b, g = p.batch(seqs, nums, before)
        qkv = p.tokens(b.num_tokens)
        want = p.run(attention, p.plain, qkv, b, g)
        moved(b, g)
        sinks = None if p.sinks is None else p.sinks.to(DEVICE)
        got = attention_fixed.attention_fixed(*(x.to(DEVICE) for x in qkv), p.cache, b, g, p.shape, sinks).cpu()
    # why: powers of two are approximate on a GPU
    near(got, want, 1e-4 if dtype is torch.float32 and HAS_GPU else attention.tol.of(dtype))


ATTENTIONS = (
    (64, (32, 8, 128, 128), None, None, False, 1300),
    (16, (12, 2, 64, 64), 200, 20.0, True, 700),
    (128, (8, 1, 256, 256), None, 30.0, False, 900),
    (32, (6, 6, 80, 80), 33, None, True, 600),
    (64, (48, 1, 32, 32), None, None, True, 1100),
)
SMALL = ((16, (4, 2, 16, 16), 60, 20.0, True, 420),)


@EACH
@pytest.mark.parametrize("case", ATTENTIONS if HAS_GPU else SMALL, ids=str)
def test_attention_of_a_token_does_not_know_how_it_came(case, dtype, monkeypatch):
    """The whole prompt at once, in chunks beside others, token by token with and without shares of the cache."""
    torch.manual_seed(0)
    block, heads, window, cap, sinks, length = case
    if not HAS_GPU:
        monkeypatch.setattr(attention_fixed, "_SPLIT", 64)
        length //= 4
    others = (40, 1, 290) if HAS_GPU else (2, 20)
    p = on_device(Paged((block, heads, (length, *others), (0,) * (1 + len(others)), window, cap, sinks), dtype, 0))
    kept = [x.to(DEVICE) for x in p.tokens(length)]
    sink = None if p.sinks is None else p.sinks.to(DEVICE)

    def step(seqs: list[int], nums: list[int], before: list[int]) -> torch.Tensor:
        """The answer for sequence 0, wherever it stands in the step."""
        b, g = moved(*p.batch(seqs, nums, before))
        mine = seqs.index(0)
        start, low, num = sum(nums[:mine]), before[mine], nums[mine]
        qkv = [x.to(DEVICE) for x in p.tokens(b.num_tokens)]
        for x, own in zip(qkv, kept, strict=True):
            x[start : start + num] = own[low : low + num]
        return attention_fixed.attention_fixed(*qkv, p.cache, b, g, p.shape, sink)[start : start + num]

    whole = step([0], [length], [0])
    cuts = [0, 1, length // 3, length // 3 + 17, length - 5, *range(length - 4, length + 1)]
    for low, high in itertools.pairwise(cuts):
        rest = list(range(1, 1 + len(others)))
        got = step([rest[0], 0, *rest[1:]], [others[0], high - low, *others[1:]], [0, low, *(0 for _ in rest[1:])])
        assert same(got, whole[low:high]), (low, high)
    for most in (1 << 30, 0):
        monkeypatch.setattr(attention_fixed, "_MOST_PROGRAMS", most)
        ones = [length - 1, *(n - 1 for n in others)]
        assert same(step([0], [1], ones[:1]), whole[-1:])
        assert same(step([*range(1, len(ones)), 0], [1] * len(ones), [*ones[1:], ones[0]]), whole[-1:])


@EACH
def test_heads_and_experts_do_not_know_the_others(dtype):
    torch.manual_seed(0)
    many = 600 if HAS_GPU else 36
    chosen = select(Target("cuda", dtype, True, capability=(9, 0)), folders=("triton",))
    assert [chosen.chosen[op].name for op in ("split_heads", "choose", "experts", "linear", "attention")] == [
        "fixed"
    ] * 5
    shape = HeadsShape(8, 2, 64, 1e-6)
    x, norm = random(many, 12 * 64, dtype=dtype), torch.rand(2, 64, device=DEVICE) + 0.5
    cos, sin = random(many, 32), random(many, 32)
    whole = chosen.split_heads(x, shape, *norm, cos, sin)
    for got, want in zip(whole, split_heads(x, shape, *norm, cos, sin), strict=True):
        near(got, want, split_heads.tol.of(dtype))
    num, wide, inter, top = (16, 256, 128, 4) if HAS_GPU else (4, 64, 32, 2)
    hidden, router = random(many, wide, dtype=dtype), random(num, wide, dtype=dtype)
    up, down = random(num, 2 * inter, wide, dtype=dtype) / 16, random(num, wide, inter, dtype=dtype) / 16
    picked = chosen.choose(hidden, router, top, True)
    sums = experts_fixed(hidden, *picked, up, down, "silu")
    near(sums, experts(hidden.double(), picked[0], picked[1].long(), up.double(), down.double(), "silu"),
         experts.tol.of(dtype) * (2 if HAS_GPU else 1))  # fmt: skip
    for rows in (1, 5, 33, many // 2):
        for got, want in zip(chosen.split_heads(x[-rows:], shape, *norm, cos[-rows:], sin[-rows:]), whole, strict=True):
            assert same(got, want[-rows:])
        mine = chosen.choose(hidden[-rows:], router, top, True)
        assert all(same(a, b[-rows:]) for a, b in zip(mine, picked, strict=True))
        assert same(experts_fixed(hidden[-rows:], *mine, up, down, "silu"), sums[-rows:])
