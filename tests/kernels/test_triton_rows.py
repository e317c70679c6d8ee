"""Gathering from rows and choosing tokens: the Triton kernels against the references, token for token."""

from dataclasses import replace

import pytest
import torch

from tests.kernels.triton_here import DEVICE
from vllm.ops.rope import turns
from vllm.ops.rows import CASES, FORBIDDEN, SEEN, RowOptions, RowState, gather_rows, pick, pick_any
from vllm.ops.triton.options import pick_any_triton
from vllm.ops.triton.rows import gather_rows_triton, pick_triton
from vllm.ops.triton.turns import turns_triton

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


def test_turns():
    cos, sin = torch.randn(2, 50, 24, device=DEVICE)
    positions = torch.randint(0, 50, (9,), device=DEVICE)
    for got, want in zip(turns_triton(positions, cos, sin), turns(positions, cos, sin), strict=True):
        assert torch.equal(got, want)


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


def test_near_ties():
    """Equal logits leave it to the noise, large ones and many near scores to the exact sum."""
    torch.manual_seed(2)
    s = state(5000)
    s.free_at[:] = 0
    rows = torch.arange(1, 9, dtype=torch.int32, device=DEVICE)
    lens = torch.randint(1, 500, (8,), dtype=torch.int32, device=DEVICE)
    equal = [torch.full((8, 5000), x) for x in (0.0, 3e7, float("-inf"))]
    for logits in (*equal, torch.randn(8, 5000) * 1e-3 + 1e4, torch.randn(8, 5000) * 30):
        logits = logits.to(DEVICE)
        assert torch.equal(pick_triton(logits, rows, lens, copy(s)), pick(logits.clone(), rows, lens, copy(s)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_logits_in_16_bits(dtype):
    torch.manual_seed(4)
    s = state(5000)
    rows = torch.arange(1, 9, dtype=torch.int32, device=DEVICE)
    lens = torch.randint(1, 500, (8,), dtype=torch.int32, device=DEVICE)
    logits = (torch.randn(8, 5000, device=DEVICE) * 3).to(dtype)
    assert torch.equal(pick_triton(logits, rows, lens, copy(s)), pick(logits.float(), rows, lens, copy(s)))
    got, want = gather_rows_triton(rows, s), gather_rows(rows, s)
    assert torch.equal(got.token_ids, want.token_ids) and torch.equal(got.tables[0], want.tables[0])


def with_options(s: RowState, vocab: int, slots: int = 6) -> RowState:
    """Rows of every kind: cut in one way or several, penalized, biased, greedy, plain."""
    one = ROWS + 1
    zeros, whole = torch.zeros(one, device=DEVICE), torch.zeros(one, dtype=torch.int32, device=DEVICE)
    o = RowOptions(
        *(whole.clone(), zeros + 1, zeros.clone(), zeros.clone(), zeros.clone(), zeros + 1),
        *(whole.clone(), whole.clone()),
        torch.zeros(slots + 1, vocab, dtype=torch.int16, device=DEVICE),
        torch.zeros(slots + 1, vocab, device=DEVICE),
    )
    o.counts[1:] = torch.randint(0, 3, (slots, vocab), device=DEVICE).short() * (
        torch.rand(slots, vocab, device=DEVICE) < 0.1
    )
    o.counts[1:] += SEEN * (torch.rand(slots, vocab, device=DEVICE) < 0.1).short()
    o.bias[1] = torch.randn(vocab, device=DEVICE)
    o.bias[2, : vocab // 2] = float("-inf")
    kinds = (
        {}, {"top_k": 1}, {"top_k": 50}, {"top_p": 0.9}, {"top_p": 0.01}, {"min_p": 0.1}, {"top_k": 20, "top_p": 0.8},
        {"top_k": 400, "top_p": 0.5, "min_p": 0.01}, {"repetition": 1.3, "count_slot": 1},
        {"presence": 0.5, "frequency": 0.7, "count_slot": 2}, {"bias_slot": 1}, {"bias_slot": 2, "top_p": 0.7},
        {"top_k": 7, "repetition": 0.8, "frequency": -0.4, "count_slot": 3, "bias_slot": 1}, {"top_k": vocab + 3},
    )  # fmt: skip
    for row in range(ROWS):
        for name, value in kinds[row % len(kinds)].items():
            getattr(o, name)[row] = value
    for slot in range(1, 4):  # a slot belongs to one row
        mine = (o.count_slot == slot).nonzero()[:, 0]
        o.count_slot[mine[1:]] = 0
    s.options = o
    return s


@pytest.mark.parametrize(
    "case", [(8, 1000), (28, 4099), (28, 40_000)] if DEVICE == "cuda" else [(8, 1000), (14, 8300)], ids=str
)
def test_pick_any(case):
    torch.manual_seed(3)
    lines, vocab = case
    s = with_options(state(vocab), vocab)
    rows = torch.randperm(lines if lines > 8 else ROWS, device=DEVICE)[:lines].int()
    lens = torch.randint(1, 500, (lines,), dtype=torch.int32, device=DEVICE)
    logits = torch.randn(lines, vocab, device=DEVICE) * 3
    if lines > 8:
        logits[::2] = (logits[::2] * 2).round() / 2  # equal logits at every edge
    for n, row in enumerate(rows.tolist()):
        logits[n, s.forbidden[row].long()] = 40.0
    ours, theirs = copy(s), copy(s)
    ours.options = replace(s.options, counts=s.options.counts.clone())
    theirs.options = replace(s.options, counts=s.options.counts.clone())
    want = pick_any(logits.clone(), rows, lens, theirs)
    got = pick_any_triton(logits.clone(), rows, lens, ours)
    assert torch.equal(got, want), (got != want).nonzero()[:, 0].tolist()
    assert torch.equal(ours.last, theirs.last) and torch.equal(ours.computed, theirs.computed)
    assert torch.equal(ours.options.counts, theirs.options.counts)
