"""Routing, sorting and experts in Triton against the references: on a GPU, elsewhere float32 in the interpreter."""

import pytest
import torch

from tests.kernels.triton_here import DEVICE, DTYPES
from vllm.ops.fold import Folded, fold, folded_choose, folded_experts
from vllm.ops.moe import CASES, choose, experts, route
from vllm.ops.triton import moe, moe_sort
from vllm.ops.triton.moe import experts_triton, folded_experts_triton, grouped
from vllm.ops.triton.moe_choose import choose_triton, folded_choose_triton
from vllm.ops.triton.moe_many import by_hopper, hopper_products
from vllm.ops.triton.moe_sort import sort
from vllm.ops.triton.moe_tiles import Tile, Tiles

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


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


ALONE = Tiles(16, Tile(32, 32, 4, 2), Tile(4, 0, 4, 1), rows_alone=1 << 20)
SORTED = Tiles(16, Tile(32, 32, 4, 2), Tile(64, 16, 4, 2))
TURNED = Tiles(16, Tile(64, 32, 4, 2, True), Tile(64, 32, 4, 2, True))


@dtypes
@pytest.mark.parametrize("z", [ALONE, SORTED, TURNED], ids=["alone", "sorted", "turned"])
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


@pytest.mark.parametrize("z", [ALONE, SORTED, TURNED], ids=["alone", "sorted", "turned"])
@pytest.mark.parametrize("act", ["silu", "plain gelu_tanh"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_folded_experts(tokens, act, z, monkeypatch):
    """Norms around the experts folded into their kernels."""
    torch.manual_seed(0)
    dtype, width, num, inter, top_k = DTYPES[min(1, len(DTYPES) - 1)], 72, 6, 24, 3
    monkeypatch.setattr(moe, "tiles", lambda *_: z)
    parts = 1 if act.startswith("plain") else 2
    up, down = rand(num, parts * inter, width) / width**0.5, rand(num, width, inter) / inter**0.5
    up, down, router = up.to(dtype), down.to(dtype), rand(num, width, dtype=dtype)
    f = fold(rand(tokens, width, dtype=dtype) * 3, torch.rand(width, device=DEVICE) + 0.5)
    f = Folded(f.hidden, f.scaled, torch.cat([f.squares / 5] * 5))
    weights, ids, factor = folded_choose_triton(f, 1e-5, router, top_k, True)
    want, theirs, factors = folded_choose(f, 1e-5, router.float(), top_k, True)
    assert torch.equal(ids.long(), theirs)
    close(weights, want, 1e-2)
    close(factor, factors, 1e-5)
    after, kind = torch.rand(width, device=DEVICE) + 0.5, act.split()[-1]
    want = folded_experts(Folded(f.hidden.clone(), f.scaled, f.squares), factors, want, theirs, up, down, kind, after)
    got = folded_experts_triton(f, factor, weights, ids, up, down, kind, after)
    assert got.hidden is f.hidden, "the sum takes the place of the stream"
    for mine, other in ((got.hidden, want.hidden), (got.scaled, want.scaled), (got.squares.sum(0), want.squares[0])):
        close(mine, other, folded_experts.tol.of(dtype))


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
    assert hopper_products() is not None and hopper_products().can(x, up, down, "silu")
    want, got = experts(x, weights, ids, up, down, "silu"), by_hopper(x, weights, ids.int(), up, down)
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= experts.tol.of(dtype), f"{error:.2e}"
