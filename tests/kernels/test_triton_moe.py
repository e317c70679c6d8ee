"""Routing, sorting and experts in Triton against the references: on a GPU, elsewhere float32 in the interpreter."""

import pytest
import torch

from tests.kernels.triton_here import DEVICE, DTYPES
from vllm.ops.fold import Folded, fold, folded_moe, linear_mul
from vllm.ops.moe import CASES, add_apart_rms_norm, choose, experts, moe, route, total
from vllm.ops.triton import moe_few, moe_sort
from vllm.ops.triton.moe import experts_triton, grouped
from vllm.ops.triton.moe_choose import choose_many, choose_triton, pick
from vllm.ops.triton.moe_few import few_tokens, folded_moe_triton, moe_apart_triton, moe_triton
from vllm.ops.triton.moe_join import add_apart_rms_norm_triton, joined
from vllm.ops.triton.moe_many import by_hopper, hopper_products, spread_rows
from vllm.ops.triton.moe_sort import sort, sort_counted
from vllm.ops.triton.moe_tiles import Tile, Tiles
from vllm.ops.triton.norm import add_rms_norm_triton

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(shape, device=DEVICE).to(dtype)
    if DEVICE != "cpu":
        torch.cuda.synchronize()  # why: weights are read before a kernel's turn, so they must not be new
    return made


def close(got: torch.Tensor, want: torch.Tensor, tol: float) -> None:
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert got.shape == want.shape and error <= tol, f"{error:.2e}"


@dtypes
@pytest.mark.parametrize("case", [*CASES, (33, 96, 6, 8, 3, True), (3, 1000, 130, 8, 8, False)], ids=str)
def test_choosing(case, dtype):
    torch.manual_seed(0)
    tokens, width, num, _, top_k, renormalize = case
    x, w = rand(tokens, 2 * width, dtype=dtype)[:, :width], rand(num, width, dtype=dtype)
    weights, ids = choose_triton(x, w, top_k, renormalize)
    want, theirs = choose(x, w.float(), top_k, renormalize)
    error = (weights - want).abs().max()
    assert error <= 1e-5 and torch.equal(ids.long(), theirs), f"{error:.2e}"


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_a_row_of_nan_still_names_experts():
    x, w = rand(3, 64), rand(8, 64)
    x[1] = float("nan")
    _, ids = choose_triton(x, w, 2, True)
    assert ids.min() >= 0 and ids.max() < 8
    assert torch.equal(ids[0].long(), route(x[:1] @ w.T, 2, True)[1][0])


@pytest.mark.parametrize("case", [(1, 8, 8), (7, 8, 3), (40, 16, 4), (90, 6, 3), (9, 130, 8)], ids=str)
@pytest.mark.parametrize("few", [True, False])
def test_sorting(case, few, monkeypatch):
    torch.manual_seed(0)
    if not few:
        monkeypatch.setattr(moe_sort, "_FEW", 0)
        monkeypatch.setattr(moe_sort, "_CHUNK", 64)
    tokens, num, top_k = case
    chosen = torch.stack([torch.randperm(num)[:top_k] for _ in range(tokens)]).to(DEVICE, torch.int32)
    s = sort(chosen, num, 16)
    flat = chosen.flatten().long()
    assert torch.equal(s.order.long(), flat.argsort(stable=True))
    assert torch.equal(s.order[s.place.long()].long(), torch.arange(flat.numel(), device=DEVICE))
    counts = torch.bincount(flat, minlength=num)
    assert torch.equal(s.ends.long(), counts.cumsum(0))
    want = []
    for e, count in enumerate(counts.tolist()):
        first = int(counts[:e].sum())
        want += [[e, first + b, first + count] for b in range(0, count, 16)]
    got = s.blocks.tolist()
    assert got[: len(want)] == want and all(b == [-1, 0, 0] for b in got[len(want) :])


@dtypes
@pytest.mark.parametrize("case", [(140, 40, 6, 3), (9, 64, 100, 8)], ids=str)
def test_counting_while_choosing(case, dtype):
    """Product, choice and counts in one, then every pair to its place: as by themselves."""
    torch.manual_seed(0)
    tokens, width, num, top_k = case
    x, w = rand(tokens, 2 * width, dtype=dtype)[:, :width], rand(num, width, dtype=dtype)
    x[3] = float("nan")
    weights, ids, counts = choose_many(x, w, top_k, True)
    want, theirs = choose_triton(x, w, top_k, True)
    assert (weights - want).abs()[torch.arange(tokens) != 3].max() <= 1e-5 and torch.equal(ids, theirs)
    for got, expected in ((sort_counted(ids, counts, num, 16), sort(ids, num, 16)),):
        for name in ("order", "place", "blocks", "ends"):
            assert torch.equal(getattr(got, name), getattr(expected, name)), name


ALONE = Tiles(16, Tile(32, 32, 4, 2), Tile(4, 0, 4, 1), rows_alone=1 << 20)
SORTED = Tiles(16, Tile(32, 32, 4, 2), Tile(64, 16, 4, 2))
TURNED = Tiles(16, Tile(64, 32, 4, 2, True), Tile(64, 32, 4, 2, True))


@dtypes
@pytest.mark.parametrize("z", [SORTED, TURNED], ids=["sorted", "turned"])
@pytest.mark.parametrize("case", [*CASES[:2], (20, 72, 6, 24, 3, False)], ids=str)
@pytest.mark.parametrize("act", ["silu", "plain gelu_tanh"])
def test_experts(case, z, act, dtype):
    torch.manual_seed(0)
    tokens, width, num, inter, top_k, renormalize = case
    x = rand(tokens, 2 * width, dtype=dtype)[:, :width]
    parts = 1 if act.startswith("plain") else 2
    up, down = rand(num, parts * inter, width) / width**0.5, rand(num, width, inter) / inter**0.5
    up, down = up.to(dtype), down.to(dtype)
    weights, ids = route(rand(tokens, num), top_k, renormalize)
    ids[: tokens // 2] = ids[0]
    want = experts(x, weights, ids, up, down, act.split()[-1])
    got = grouped(x, weights, ids.int(), up, down, act.split()[-1], z)
    assert got.dtype == want.dtype
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= experts.tol.of(dtype), f"{error:.2e}"


@dtypes
@pytest.mark.parametrize("case", [*CASES, (33, 96, 6, 8, 3, True), (20, 1000, 130, 8, 8, False)], ids=str)
def test_picking(case, dtype):
    """Choice and sort in one: every pair at its expert, in the order of tokens."""
    torch.manual_seed(0)
    tokens, width, num, _, top_k, renormalize = case
    x, w = rand(tokens, 2 * width, dtype=dtype)[:, :width], rand(num, width, dtype=dtype)
    want, ids = choose(x, w.float(), top_k, renormalize)
    assert torch.equal(pick(x, w, top_k, renormalize, True).order.long(), ids)
    p = pick(x, w, top_k, renormalize, False)
    weights = p.weights / p.weights.sum(-1, keepdim=True) if renormalize else p.weights
    assert (weights - want).abs().max() <= 1e-5
    counts = torch.bincount(ids.flatten(), minlength=num)
    assert torch.equal(p.counts.long(), counts)
    got = torch.cat([row[:count] for row, count in zip(p.order.long(), counts.tolist(), strict=True)])
    assert torch.equal(got, ids.flatten().argsort(stable=True))


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("z", ["alone", "sorted"])
def test_a_row_of_nan_harms_no_other(z):
    torch.manual_seed(0)
    x, w, up, down = rand(3, 64), rand(8, 64), rand(8, 64, 64) / 8, rand(8, 64, 32) / 6
    x[1] = float("nan")
    tile = ALONE if z == "alone" else SORTED
    got = few_tokens(x, w, 2, True, up, down, "silu", z=tile)[0]
    keep = torch.tensor([0, 2], device=DEVICE)
    close(got[keep], moe(x[keep], w, 2, True, up, down, "silu"), 1e-5)


@dtypes
@pytest.mark.parametrize("z", [ALONE, SORTED, TURNED], ids=["alone", "sorted", "turned"])
@pytest.mark.parametrize("case", [*CASES[:2], (20, 72, 6, 24, 3, False), (40, 64, 5, 24, 3, True)], ids=str)
@pytest.mark.parametrize("act", ["silu", "plain gelu_tanh"])
def test_few_tokens(case, z, act, dtype):
    """Router, choice and experts; one expert has more than a block of tokens."""
    torch.manual_seed(0)
    tokens, width, num, inter, top_k, renormalize = case
    tokens = min(tokens, 3) if z is ALONE else tokens
    x = rand(tokens, 2 * width, dtype=dtype)[:, :width]
    parts = 1 if act.startswith("plain") else 2
    up, down = rand(num, parts * inter, width) / width**0.5, rand(num, width, inter) / inter**0.5
    up, down, router = up.to(dtype), down.to(dtype), rand(num, width, dtype=dtype)
    x[1 : tokens // 2] = x[0].clone()
    want = moe(x, router.float(), top_k, renormalize, up, down, act.split()[-1])
    got = few_tokens(x, router, top_k, renormalize, up, down, act.split()[-1], z=z)[0]
    close(got, want, experts.tol.of(dtype))


@pytest.mark.parametrize("z", [ALONE, SORTED, TURNED, None], ids=["alone", "sorted", "turned", "many experts"])
@pytest.mark.parametrize("act", ["silu", "plain gelu_tanh"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_folded_experts(tokens, act, z, monkeypatch):
    """Norms around the experts folded into their kernels."""
    torch.manual_seed(0)
    dtype, width, num, inter, top_k = DTYPES[min(1, len(DTYPES) - 1)], 72, 6, 24, 3
    monkeypatch.setattr(moe_few, "tiles", lambda *_, **__: z or SORTED)
    if z is None:
        monkeypatch.setattr(moe_few, "can_pick", lambda *_: False)
    parts = 1 if act.startswith("plain") else 2
    up, down = rand(num, parts * inter, width) / width**0.5, rand(num, width, inter) / inter**0.5
    up, down, router = up.to(dtype), down.to(dtype), rand(num, width, dtype=dtype)
    f = fold(rand(tokens, width, dtype=dtype) * 3, torch.rand(width, device=DEVICE) + 0.5)
    f = Folded(f.hidden, f.scaled, torch.cat([f.squares / 5] * 5))
    after, kind = torch.rand(width, device=DEVICE) + 0.5, act.split()[-1]
    copy = Folded(f.hidden.clone(), f.scaled, f.squares)
    want = folded_moe(copy, 1e-5, router.float(), top_k, True, up, down, kind, after)
    got = folded_moe_triton(f, 1e-5, router, top_k, True, up, down, kind, after)
    assert got.hidden is f.hidden, "the sum takes the place of the stream"
    for mine, other in ((got.hidden, want.hidden), (got.scaled, want.scaled), (got.squares.sum(0), want.squares[0])):
        close(mine, other, folded_moe.tol.of(dtype))


@dtypes
@pytest.mark.parametrize("tokens", [1, 5, 40] if DEVICE == "cpu" else [1, 2, 5, 17, 40, 128, 150, 3000])
def test_moe_by_the_table(tokens, dtype):
    torch.manual_seed(0)
    x, up, down = rand(tokens, 64, dtype=dtype), rand(16, 64, 64, dtype=dtype), rand(16, 64, 32, dtype=dtype)
    router = rand(16, 64, dtype=dtype)
    want = moe(x, router.float(), 4, True, up, down, "silu")
    close(moe_triton(x, router, 4, True, up, down, "silu"), want, experts.tol.of(dtype))


@dtypes
@pytest.mark.parametrize("top_k", [1, 4])
@pytest.mark.parametrize("tokens", [2, 9] if DEVICE == "cpu" else [1, 2, 5, 40, 128, 150, 3000, 9000])
def test_left_to_the_norm(tokens, top_k, dtype):
    """The sum over experts in the norm behind them."""
    torch.manual_seed(0)
    x, up = rand(tokens, 256, dtype=dtype), rand(16, 256, 256, dtype=dtype) / 16
    down = rand(16, 256, 128, dtype=dtype) / 11
    router, weight, stream = rand(16, 256, dtype=dtype), rand(256), rand(tokens, 512, dtype=dtype)[:, :256]
    args = x, router, top_k, True, up, down, "silu"
    plain = moe_triton(*args)
    want = add_rms_norm_triton(plain, stream.clone(), weight, 1e-6)
    a = moe_apart_triton(*args)
    close(total(a, dtype), plain, 1e-2 if dtype is not torch.float32 else 1e-5)
    copy = stream.clone()
    got = add_apart_rms_norm_triton(a, stream, weight, 1e-6)
    assert got[0] is stream
    assert torch.equal(got[0], want[0]), "the sum itself has the bits of one after the other"
    close(got[1], want[1], add_apart_rms_norm.tol.of(dtype))
    want = add_apart_rms_norm(a, copy, None, 1e-6)[1]
    close(add_apart_rms_norm_triton(a, copy, None, 1e-6)[1], want, add_apart_rms_norm.tol.of(dtype))


@dtypes
@pytest.mark.parametrize("tokens", [1, 5, 40] if DEVICE == "cpu" else [1, 5, 150, 3000])
def test_experts_by_the_table(tokens, dtype):
    """Also the library's path, on a GPU."""
    torch.manual_seed(0)
    x, up, down = rand(tokens, 64, dtype=dtype), rand(16, 64, 64, dtype=dtype), rand(16, 64, 32, dtype=dtype)
    weights, ids = route(rand(tokens, 16), 4, True)
    want, got = experts(x, weights, ids, up, down, "silu"), experts_triton(x, weights, ids.int(), up, down, "silu")
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= experts.tol.of(dtype), f"{error:.2e}"


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [(300, 4, 512, 256), (700, 16, 256, 128), (1500, 6, 768, 384), (129, 1, 256, 640)])
def test_hopper_s_products(case, dtype):
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no Hopper")
    torch.manual_seed(0)
    tokens, num, width, inter = case
    x, up, down = rand(tokens, width), rand(num, 2 * inter, width) / width**0.5, rand(num, width, inter) / inter**0.5
    x, up, down = x.to(dtype), up.to(dtype), down.to(dtype)
    weights, ids = route(rand(tokens, num), min(4, num), True)
    hopper = hopper_products()
    assert hopper is not None and hopper.can(x, up, down, "silu")
    s = sort(ids.int(), num, hopper.ROWS)
    fetched, copied = hopper.product(x, up, s, True, ids.shape[1]), spread_rows(x, s, ids.shape[1])
    assert torch.equal(fetched, hopper.product(copied, up, s, True)), "rows fetched one by one are the same rows"
    want = experts(x, weights, ids, up, down, "silu")
    got = joined(by_hopper(x, weights, ids.int(), up, down), dtype, None)[0]
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= experts.tol.of(dtype), f"{error:.2e}"


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("group", [1, 8])
@pytest.mark.parametrize("case", [(129, 256, 512), (700, 64, 256), (2500, 512, 1280)], ids=str)
def test_all_rows_for_one(case, group):
    """The products of experts as a map with its activation, and as a plain one."""
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no Hopper")
    torch.manual_seed(0)
    rows, width, outputs = case
    x, w = rand(rows, width, dtype=torch.bfloat16), rand(outputs, width, dtype=torch.bfloat16) / 8
    products = hopper_products()
    assert products is not None and products.can_dense(x, w)
    close(products.dense(x, w, True, group), linear_mul(x, w), linear_mul.tol.of(x.dtype))
    close(products.dense(x, w, False, group), x @ w.T, 1e-2)
