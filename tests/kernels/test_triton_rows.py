"""Gathering from rows and choosing tokens: the Triton kernels against the references, token for token."""

from dataclasses import replace

import pytest
import torch

from tests.kernels.triton_here import DEVICE
from vllm.ops.rows import CASES, FORBIDDEN, RowState, gather_rows, pick
from vllm.ops.triton.rows import gather_rows_triton, pick_triton

pytestmark = [pytest.mark.gpu_too, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ROWS = 40


def state(vocab: int, sizes=(16, 64), width: int = 11) -> RowState:
    """Random rows; every third is greedy, every second may not choose some ids yet."""
    one = ROWS + 1
    made = RowState(
        torch.randint(0, vocab, (one,), dtype=torch.int32, device=DEVICE),
        torch.randint(0, 16 * width, (one,), dtype=torch.int32, device=DEVICE),
        torch.rand(one, device=DEVICE) + 0.3,
        torch.randint(-(2**62), 2**62, (one,), device=DEVICE),
        torch.zeros(one, dtype=torch.int32, device=DEVICE),
        torch.randint(0, vocab, (one, FORBIDDEN), dtype=torch.int32, device=DEVICE),
        [torch.randint(1, 99, (one, width), dtype=torch.int32, device=DEVICE) for _ in sizes],
        list(sizes),
    )
    made.temperature[::3] = 0
    made.free_at[::2] = 10_000
    for x in (made.last, made.computed, made.free_at, *made.tables):
        x[-1] = 0
    return made


def copy(s: RowState) -> RowState:
    return replace(s, last=s.last.clone(), computed=s.computed.clone())


@pytest.mark.parametrize("lines", [1, 5, 16])
def test_gather(lines):
    torch.manual_seed(lines)
    s = state(300)
    rows = torch.randperm(ROWS, device=DEVICE)[:lines].int()
    rows[-1] = ROWS if lines > 1 else rows[-1]
    want, got = gather_rows(rows, s), gather_rows_triton(rows, s)
    for name in ("token_ids", "positions", "seq_lens"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    for a, b in zip(got.slots + got.tables, want.slots + want.tables, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    if lines > 1:
        assert got.slots[0][-1] == 0 and got.seq_lens[-1] == 1


@pytest.mark.parametrize("case", [c for c in CASES if c[0] * c[1] < 70_000 or DEVICE == "cuda"], ids=str)
def test_pick(case):
    torch.manual_seed(1)
    lines, vocab = case
    s = state(vocab)
    rows = torch.randperm(ROWS, device=DEVICE)[:lines].int()
    if lines > 1:
        rows[-1] = ROWS
    lens = torch.randint(1, 500, (lines,), dtype=torch.int32, device=DEVICE)
    logits = torch.randn(lines, vocab, device=DEVICE) * 3
    for n, row in enumerate(rows.tolist()):  # a forbidden id would win
        logits[n, s.forbidden[row].long()] = 40.0
    ours, theirs = copy(s), copy(s)
    want = pick(logits.clone(), rows, lens, theirs)
    got = pick_triton(logits, rows, lens, ours)
    assert torch.equal(got, want)
    assert torch.equal(ours.last, theirs.last) and torch.equal(ours.computed, theirs.computed)
    assert ours.computed[ROWS] == 0 and ours.last[rows[0].long()] == got[0]
    for n, row in enumerate(rows.tolist()):
        assert (got[n].item() in s.forbidden[row].tolist()) == (s.free_at[row].item() == 0)
