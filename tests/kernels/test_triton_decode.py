"""Attention from projections in one Triton kernel against the composition of the references."""

import pytest
import torch

from tests.kernels.test_cpu_attention import Paged
from tests.kernels.test_triton_attention import moved, on_device
from tests.kernels.triton_here import DEVICE, DTYPES, HAS_GPU
from vllm.ops.attention import attention, write_kv
from vllm.ops.heads import HeadsShape
from vllm.ops.heads_attention import heads_attention
from vllm.ops.quantize import restore
from vllm.ops.triton import decode
from vllm.ops.triton.attention import attention_triton
from vllm.ops.triton.chain import tickets
from vllm.ops.triton.decode import heads_attention_triton
from vllm.ops.triton.decode_ways import LEAN, Way, way_of

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
CASES = (
    # P, (H, K, D, N), query lens, context lens, window, softcap, sinks; norms, rotated dimensions, clip, interleaved
    ((64, (16, 8, 128, 128), (1, 1, 1), (1, 63, 200), None, None, False), True, 128, None, False),
    ((16, (8, 2, 64, 64), (1, 1, 1, 1), (1, 7, 100, 233), None, None, True), False, 64, None, False),
    ((32, (14, 2, 64, 64), (1, 1), (64, 327), 100, None, False), False, 32, None, True),
    ((64, (4, 2, 32, 32), (1, 1, 1), (40, 200, 3), 17, 5.0, True), True, 16, 1.0, False),
    ((16, (4, 4, 80, 80), (1,), (37,), None, None, False), True, 0, None, False),
    ((16, (4, 2, 32, 32), (1, 1), (0, 65), 1, None, False), False, 16, None, False),
    ((64, (4, 2, 256, 256), (1, 1), (40, 130), 100, 50.0, False), True, 256, None, False),
    ((16, (6, 2, 96, 96), (1, 1), (17, 70), None, None, True), False, 48, None, False),
)
LONG = (
    # those of one list of tiles: heads that end inside a program, and over several ones
    ((64, (14, 2, 64, 64), (1,) * 5, (0, 64, 127, 700, 1500), None, None, True), False, 32, None, True),
    ((128, (8, 1, 128, 128), (1,) * 3, (5, 1023, 2100), None, 30.0, False), True, 128, 1.0, False),
    ((64, (32, 8, 128, 128), (1,) * 5, (64, 63, 1, 900, 300), 200, None, True), False, 128, None, False),
    ((64, (16, 8, 128, 128), (1,) * 150, tuple(range(0, 1200, 8)), None, None, False), True, 128, None, False),
)


@pytest.mark.parametrize("case", CASES + LONG * HAS_GPU, ids=lambda case: str(case)[:90])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "way", [Way(3, 2, False, 5), Way(7, 1, True, 3), LEAN, None, "list"][: 2 + 3 * HAS_GPU], ids=str
)
def test_agrees_with_the_references(case, dtype, way, monkeypatch):
    monkeypatch.setattr(decode, "EVEN", range(1 << 30 if way == "list" else 0))
    if isinstance(way, Way):
        monkeypatch.setattr(decode, "way_of", lambda heads, tiles, lean=False: way)
    torch.manual_seed(0)
    paged, normed, turned, clip, interleaved = case
    p = on_device(Paged(paged, dtype, garbage=0))
    queries, contexts = list(paged[2]), list(paged[3])
    heads = HeadsShape(p.H, p.K, p.D, 1e-6, clip, interleaved)
    norms = (torch.rand(p.D) + 0.5, torch.rand(p.D) + 0.5) if normed else (None, None)
    b, g = p.batch(list(range(len(queries))), contexts, [0] * len(queries))
    before = p.tokens(b.num_tokens)
    write_kv(*before[1:], p.plain, g, p.shape)
    fill(p, before, g)
    sinks = None if p.sinks is None else p.sinks.to(DEVICE)
    for _ in range(2):  # a call leaves its tickets as it found them
        b, g = p.batch(list(range(len(queries))), queries, contexts)
        qkv = torch.randn(len(queries), (p.H + 2 * p.K) * p.D).to(dtype)
        angle = torch.rand(len(queries), turned // 2) * 6
        turns = (angle.cos(), angle.sin()) if turned else (None, None)
        want = heads_attention(qkv, heads, norms, turns, p.plain, b, g, p.shape, p.sinks)
        moved(b, g)
        there = [tuple(None if x is None else x.to(DEVICE) for x in two) for two in (norms, turns)]
        got = heads_attention_triton(qkv.to(DEVICE), heads, *there, p.cache, b, g, p.shape, sinks).cpu()
        error = (got.double() - want.double()).abs().max() / want.double().abs().max()
        allowed = 1e-4 if dtype is torch.float32 and DEVICE == "cuda" else heads_attention.tol.of(dtype)
        assert error <= allowed, f"{error:.2e}"
        if p.D in (64, 128):
            small = heads_attention_triton(qkv.to(DEVICE), heads, *there, p.cache, b, g, p.shape, sinks, small=True)
            error = (restore(small).cpu().view(want.shape) - want.float()).abs().max() / want.abs().max()
            # why: half a step of e4m3 above 256 is 16 of 448
            assert small.scale.shape == (len(queries), p.H) and error <= 0.037 + allowed, f"{error:.2e}"
        contexts = [c + 1 for c in contexts] if all((c + 2) // p.P == c // p.P for c in contexts) else contexts


BESIDE = (
    # decodes, idle lines (nothing before, which all have the null block) and a chunk
    (16, (4, 2, 32, 16), (1, 1, 1, 1, 1, 3), (18, 0, 71, 0, 31, 5), None, None, True),
    (64, (8, 2, 128, 128), (1, 1, 1, 1, 1, 90), (700, 0, 64, 0, 1500, 200), 300, 30.0, False),
    (64, (32, 8, 128, 128), (1,) * 150 + (90,), (0, *range(3, 1195, 8), 200), None, None, False),
)


@pytest.mark.parametrize("case", BESIDE if HAS_GPU else BESIDE[:1], ids=lambda case: str(case)[:60])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", [Way(3, 2, False, 5), Way(7, 1, True, 3), LEAN, None][: 2 + 2 * HAS_GPU], ids=str)
def test_beside_a_chunk(case, dtype, way, monkeypatch):
    if way is not None:
        monkeypatch.setattr(decode, "way_of", lambda heads, tiles, lean=False: way)
    torch.manual_seed(0)
    queries, contexts = list(case[2]), list(case[3])
    p, idle = on_device(Paged(case, dtype, garbage=0)), torch.tensor(contexts) == 0
    p.table[idle] = 0
    have = [s for s, n in enumerate(contexts) if n]
    b, g = p.batch(have, [contexts[s] for s in have], [0] * len(have))
    before = p.tokens(b.num_tokens)
    write_kv(*before[1:], p.plain, g, p.shape)
    fill(p, before, g)
    sinks = None if p.sinks is None else p.sinks.to(DEVICE)
    real = torch.cat((~idle, torch.ones(queries[-1] - 1, dtype=torch.bool)))
    for _ in range(2):  # a call leaves its tickets as it found them
        b, g = p.batch(list(range(len(queries))), queries, contexts)
        qkv = p.tokens(b.num_tokens)
        want = p.run(attention, p.plain, qkv, b, g)[real].double()
        moved(b, g)
        got = attention_triton(*(x.to(DEVICE) for x in qkv), p.cache, b, g, p.shape, sinks)
        error = (got.cpu()[real].double() - want).abs().max() / want.abs().max()
        allowed = 1e-4 if dtype is torch.float32 and DEVICE == "cuda" else attention.tol.of(dtype)
        assert error <= allowed, f"{error:.2e}"
        assert not tickets(got.device, 1).any()


def fill(p: Paged, tokens: list[torch.Tensor], group) -> None:
    """Write keys and values into the Triton layout."""
    blocks, size = p.cache.flat.shape[0], p.K * p.P * p.D
    keys = p.cache.flat[:, :size].view(blocks, p.K, p.P, p.D)
    values = p.cache.flat[:, size : size + p.K * p.P * p.N].view(blocks, p.K, p.P, p.N)
    slots = group.slot_mapping
    keys[slots // p.P, :, slots % p.P] = tokens[1].to(DEVICE)
    values[slots // p.P, :, slots % p.P] = tokens[2].to(DEVICE)


def test_a_way_for_every_number_of_heads():
    for heads in (1, 8, 100, 256, 4096, 100_000):
        for tiles in (1, 3, 64, 2048):
            way = way_of(heads, tiles)
            assert 1 <= way.shares <= tiles and way.least >= 1 and way.stages >= 2
            assert (way_of(heads, tiles, lean=True) == LEAN) == (heads > 768)
