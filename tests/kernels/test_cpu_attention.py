"""The paged CPU attention kernel against the reference, and against itself in other batches."""

import pytest
import torch

from vllm.ops.attention import AttentionShape, attention
from vllm.ops.attention import layout as reference_layout
from vllm.ops.batch import Batch, GroupBatch

pytest.importorskip("llvmlite")
from vllm.ops.cpu.attention import attention_jit, layout

CASES = (
    # P, (H, K, D, N), query lens, context lens, window, softcap, sinks
    (64, (16, 8, 128, 128), (1, 1, 1), (0, 5, 200), None, None, False),
    (16, (4, 4, 64, 64), (5, 1, 30), (0, 7, 100), None, None, False),
    (64, (16, 8, 128, 128), (130,), (0,), None, None, False),
    (32, (14, 2, 64, 64), (1, 1), (64, 127), None, None, False),
    (128, (8, 1, 80, 80), (3, 1), (200, 63), None, None, False),
    (64, (4, 2, 64, 32), (40, 1), (20, 300), 17, None, False),
    (16, (4, 2, 32, 32), (9, 1, 1), (40, 70, 3), 20, 5.0, True),
    (16, (48, 1, 32, 32), (2, 1), (3, 0), None, None, True),
    (8, (4, 2, 32, 32), (3, 1), (9, 3), None, None, False),
    (64, (4, 2, 32, 32), (1, 1, 1), (40, 400, 3), 100, 5.0, True),
    (16, (4, 2, 32, 32), (1, 1, 7), (40, 70, 3), 20, 5.0, True),
)


class Paged:
    """A cache, sequences with scattered blocks, and both kernels on it."""

    def __init__(self, case, dtype: torch.dtype, garbage: int) -> None:
        self.P, (self.H, self.K, self.D, self.N), queries, contexts, window, cap, sinks = case
        self.dtype, self.shape = dtype, AttentionShape(self.H, self.K, self.D, self.N, self.D**-0.5, window, cap)
        lens = [a + b for a, b in zip(queries, contexts, strict=True)]
        need = [-(-n // self.P) for n in lens]
        ids = torch.randperm(sum(need)) + 1
        self.table = torch.zeros(len(lens), max(need), dtype=torch.int32)
        for s, part in enumerate(ids.split(need)):
            self.table[s, : need[s]] = part
        block = self.K * self.P * (self.D + self.N) * dtype.itemsize
        self.cache = layout(torch.full((sum(need) + 1, block), garbage, dtype=torch.uint8), dtype, self.P, self.shape)
        self.plain = reference_layout(torch.zeros(sum(need) + 1, block, dtype=torch.uint8), dtype, self.P, self.shape)
        self.sinks = torch.randn(self.H) if sinks else None

    def batch(self, seqs: list[int], queries: list[int], contexts: list[int]) -> tuple[Batch, GroupBatch]:
        spans = [torch.arange(c, c + n) for n, c in zip(queries, contexts, strict=True)]
        blocks = [self.table[s, span // self.P].long() for s, span in zip(seqs, spans, strict=True)]
        slots = torch.cat([b * self.P + span % self.P for b, span in zip(blocks, spans, strict=True)])
        starts = torch.tensor([0, *torch.tensor(queries).cumsum(0)], dtype=torch.int32)
        lens = [n + c for n, c in zip(queries, contexts, strict=True)]
        group = GroupBatch(slots, self.table[seqs], self.P)
        positions, lens_S = torch.cat(spans), torch.tensor(lens, dtype=torch.int32)
        total = sum(queries)
        return Batch(
            *(positions, positions, starts, lens_S, [group], total, len(seqs), max(queries), max(lens)),
            *(list(queries), lens),
        ), group

    def tokens(self, num: int) -> list[torch.Tensor]:
        shapes = (self.H, self.D), (self.K, self.D), (self.K, self.N)
        return [torch.randn(num, *s).to(self.dtype) for s in shapes]

    def run(self, kernel, cache, qkv, batch, group) -> torch.Tensor:
        return kernel(*qkv, cache, batch, group, self.shape, self.sinks)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_agrees_with_the_reference_and_never_reads_garbage(case, dtype):
    torch.manual_seed(0)
    queries, contexts = list(case[2]), list(case[3])
    p = Paged(case, dtype, garbage=255 if case[0] % 16 == 0 else 0)  # 255: every unwritten slot is a NaN
    have = [s for s, n in enumerate(contexts) if n]
    if have:
        b, g = p.batch(have, [contexts[s] for s in have], [0] * len(have))
        qkv = p.tokens(b.num_tokens)
        p.run(attention_jit, p.cache, qkv, b, g), p.run(attention, p.plain, qkv, b, g)
    b, g = p.batch(list(range(len(queries))), queries, contexts)
    qkv = p.tokens(b.num_tokens)
    got, want = p.run(attention_jit, p.cache, qkv, b, g), p.run(attention, p.plain, qkv, b, g)
    error = (got.double() - want.double()).abs().max() / want.double().abs().max()
    assert error <= attention.tol.of(dtype), f"{error:.2e}"


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("window", (None, 50))
def test_a_token_is_the_same_to_the_bit_in_any_chunk_and_batch(dtype, window):
    torch.manual_seed(0)
    case = (32, (8, 2, 64, 64), (170, 90), (0, 0), window, None, False)
    p = Paged(case, dtype, garbage=0)
    b, g = p.batch([0, 1], [170, 90], [0, 0])
    qkv = p.tokens(b.num_tokens)
    whole = p.run(attention_jit, p.cache, qkv, b, g)
    done, pieces = 0, []
    for n in (1, 40, 1, 1, 100, 27):
        b, g = p.batch([0], [n], [done])
        pieces.append(p.run(attention_jit, p.cache, [x[done : done + n] for x in qkv], b, g))
        done += n
    assert torch.equal(torch.cat(pieces), whole[:170])
