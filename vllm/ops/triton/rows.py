"""Both ends of a decode step on a GPU: one kernel gathers a line's inputs, another chooses its
token and writes it back.

Choosing reads the logits once, in whatever dtype they come: every line is cut over programs that mask, divide by
temperature, add noise and keep their best; the last of a line takes the best of those. Noise and scores are the
reference's, bit for bit: rough scores only say which token's score is worth computing.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.draw import LARGEST_U
from vllm.ops.rows import FORBIDDEN, PLACES, Gathered, RowOptions, RowState, gather_rows, pick
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow, tickets
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.draw import _log1p, _mix
from vllm.util.arith import cdiv, next_power_of_2

_BLOCK, _PROGRAMS = 1024, 132 * 7
"""Logits that a program reads at a time; programs that an H100 or H200 runs at once (many lines: twice as many)."""
FAST = tl.constexpr(the_chip().is_nvidia)
"""The device has approximate logarithms."""


@triton.jit
def _gather(rows, last, computed, table, token_ids, positions, seq_lens, slots, mine, B: tl.constexpr,
            P: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    line, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    follow()
    row = tl.load(rows + line).to(tl.int64)
    b = chunk * CHUNK + tl.arange(0, CHUNK)
    tl.store(mine + line * B + b, tl.load(table + row * B + b, b < B, 0), b < B)
    if chunk == 0:
        position = tl.load(computed + row)
        block = tl.load(table + row * B + position // P).to(tl.int64)
        tl.store(token_ids + line, tl.load(last + row).to(tl.int64))
        tl.store(positions + line, position.to(tl.int64))
        tl.store(seq_lens + line, position + 1)
        tl.store(slots + line, block * P + position % P)


@triton.jit
def _keys(seed, length):
    """The key of a line's noise: `ops.draw.noise_keys`, in unsigned words."""
    x = seed.to(tl.uint64, bitcast=True) + 0x9E3779B97F4A7C15 * (length + 1).to(tl.uint64)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    x = x ^ (x >> 31)
    return x.to(tl.uint32), (x >> 32).to(tl.uint32)


@triton.jit
def _log2(x):
    """A logarithm that is near enough to find candidates."""
    if FAST:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.log2(x)


@triton.jit
def _noisy(logit, u, temperature):
    """A line's score, as the reference computes it."""
    return tl.where(logit == float("-inf"), float("-inf"), tl.div_rn(logit, temperature) - tl.log(-_log1p(-u)))


@triton.jit
def _uniform(token, first, second, LARGEST: tl.constexpr):
    """`ops.draw.uniform`, bit for bit."""
    x = token.to(tl.uint32) * 2654435761 + first
    x = _mix(_mix(x, second, True), second, False)
    return tl.minimum((x.to(tl.int64) * 2 + 1).to(tl.float32) * (1.0 / 8589934592.0), LARGEST)


@triton.jit
def _winner(logits, logit, at, temperature, first, second, LARGEST: tl.constexpr):
    """The best score of a part and its token. Scores of all are computed roughly, that of the best one exactly."""
    u = _uniform(at, first, second, LARGEST)
    wait = tl.where(u < 0.001, u * (1.0 + 0.5 * u), -0.6931471805599453 * _log2(1.0 - u))
    rough = logit * (1.0 / temperature) - 0.6931471805599453 * _log2(wait)
    rough = tl.where(logit == float("-inf"), float("-inf"), rough)
    best = tl.max(rough, 0)
    near = rough >= best - (0.004 + 1e-6 * tl.abs(best))
    if tl.sum(near.to(tl.int32), 0) == 1:
        token = tl.max(tl.where(near, at, -1), 0)
        only = tl.load(logits + token).to(tl.float32)
        top = _noisy(only, _uniform(token, first, second, LARGEST), temperature)
    else:
        score = _noisy(logit, u, temperature)
        top = tl.max(score, 0)
        token = tl.min(tl.where(score == top, at, 0x7FFFFFFF), 0)
    return top, token


@triton.jit
def _bound(logit, at, first, second, factor):
    """The other way round and a little less than a token's score, in powers of two and plus 32: -log1p(-u) > u."""
    x = at.to(tl.uint32) * 2654435761 + first
    x = _mix(_mix(x, second, True), second, False)
    return _log2(x.to(tl.float32) + 0.5) - logit * factor


@triton.jit
def _allowed(logit, at, forbidden, F: tl.constexpr):
    """Logits without those of the ids in `forbidden`."""
    for i in tl.static_range(F):
        logit = tl.where(at == tl.load(forbidden + i), float("-inf"), logit)
    return logit


@triton.jit
def _scores(logits, at, there, held, forbidden, temperature, first, second, LARGEST: tl.constexpr, F: tl.constexpr):
    """Scores of the tokens `at` as the reference computes them; greedy ones are logits."""
    logit = tl.load(logits + at, there, float("-inf")).to(tl.float32)
    if held:
        logit = _allowed(logit, at, forbidden, F)
    score = logit
    if temperature > 0:
        score = _noisy(logit, _uniform(at, first, second, LARGEST), temperature)
    return score


@triton.jit
def _better(top, token, score, at, there):
    """The best of (top, token) and scored tokens; the lower token of equals."""
    best = tl.max(score, 0)
    which = tl.min(tl.where(there & (score == best), at, 0x7FFFFFFF), 0)
    token = tl.where(best > top, which, tl.where(best == top, tl.minimum(token, which), token))
    return tl.maximum(top, best), token


@triton.jit
def _search(logits, begin, end, V, held, forbidden, temperature, first, second, LARGEST: tl.constexpr,
            F: tl.constexpr, BLOCK: tl.constexpr, MOST: tl.constexpr):  # fmt: skip
    """The best score of chunks begin .. end and its token.

    Each lane keeps the least bound of what it sees. Only lanes that may hold the best token are scored, best first.
    """
    lane, c = tl.arange(0, BLOCK), tl.arange(0, MOST)
    factor = 1.4426950408889634 / tl.where(temperature > 0, temperature, 1.4426950408889634)
    bounds = tl.full((BLOCK,), float("inf"), tl.float32)
    for i in range(begin, end):
        at = i * BLOCK + lane
        logit = tl.load(logits + at, at < V, float("-inf")).to(tl.float32)
        if held:
            logit = _allowed(logit, at, forbidden, F)
        if temperature > 0:
            bounds = tl.minimum(bounds, _bound(logit, at, first, second, factor))
        else:
            bounds = tl.minimum(bounds, -logit)
    top, token = tl.full((), float("-inf"), tl.float32), tl.full((), 0x7FFFFFFF, tl.int32)
    least, rounds, going = tl.min(bounds, 0), 0, True
    while going & (rounds < 8):
        mine = tl.min(tl.where(bounds == least, lane, BLOCK - 1), 0)
        at = (begin + c) * BLOCK + mine
        there = (begin + c < end) & (at < V)
        score = _scores(logits, at, there, held, forbidden, temperature, first, second, LARGEST, F)
        top, token = _better(top, token, score, at, there)
        bounds = tl.where(lane == mine, float("inf"), bounds)
        least = tl.min(bounds, 0)
        # why: what both sides may be wrong by
        near = 32.0 - top * 1.4426950408889634 + (1e-4 + 2e-6 * tl.abs(top))
        going = (least < float("inf")) & (least <= tl.where(temperature > 0, near, -top))
        rounds += 1
    if going:  # many equal ones
        for i in range(begin, end):
            at = i * BLOCK + lane
            score = _scores(logits, at, at < V, held, forbidden, temperature, first, second, LARGEST, F)
            top, token = _better(top, token, score, at, at < V)
    return top, token


@triton.jit(do_not_specialize=["each"])
def _best(logits, rows, lens, temperatures, seeds, free_at, forbidden, top_k, top_p, min_p, count_slot, counts, values,
          tokens, tickets, last, computed, told, out, V, stride, each, LARGEST: tl.constexpr, F: tl.constexpr,
          BLOCK: tl.constexpr, PP: tl.constexpr, IDLE: tl.constexpr, OPTIONS: tl.constexpr,
          TOLD: tl.constexpr):  # fmt: skip
    line, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    follow()
    row, length = tl.load(rows + line).to(tl.int64), tl.load(lens + line)
    begin = part * each
    end = tl.minimum(begin + each, tl.cdiv(V, BLOCK))
    logits += line * stride
    forbidden += row * F
    ids = tl.load(forbidden + tl.arange(0, F))
    inside = (ids >= begin * BLOCK) & (ids < end * BLOCK)
    held = (length < tl.load(free_at + row)) & (tl.max(inside.to(tl.int32), 0) > 0)
    temperature = tl.load(temperatures + row)
    if OPTIONS:  # lines that are cut are chosen elsewhere
        some = (tl.load(top_k + row) > 0) | (tl.load(top_p + row) < 1.0) | (tl.load(min_p + row) > 0.0)
        if some & (temperature > 0.0):
            return
    first, second = _keys(tl.load(seeds + row), length)
    top, token = _search(
        logits, begin, end, V, held, forbidden, temperature, first, second, LARGEST, F, BLOCK, PP
    )  # fmt: skip
    tl.store(values + line * parts + part, top)
    tl.store(tokens + line * parts + part, token)
    tl.debug_barrier()
    if tl.atomic_add(tickets + line, 1) != parts - 1:
        return
    tl.store(tickets + line, 0)
    i = tl.arange(0, PP)
    value = tl.load(values + line * parts + i, i < parts, float("-inf"), cache_modifier=".cg")
    token = tl.load(tokens + line * parts + i, i < parts, 0x7FFFFFFF, cache_modifier=".cg")
    # why: a line without a finite logit still gives a token of the vocabulary
    best = tl.minimum(tl.min(tl.where(value == tl.max(value, 0), token, 0x7FFFFFFF), 0), V - 1)
    tl.store(out + line, best.to(tl.int64))
    if row != IDLE:
        if TOLD:
            tl.store(told + row * TOLD + length % TOLD, best, cache_modifier=".wt")
        tl.store(last + row, best)
        tl.store(computed + row, length)
        if OPTIONS:
            slot = tl.load(count_slot + row).to(tl.int64)
            if slot > 0:
                place = counts + slot * V + best
                tl.store(place, tl.load(place) + 1)


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@gather_rows.kernel("triton", when=_on_gpu)
def gather_rows_triton(rows_N: torch.Tensor, state: RowState) -> Gathered:
    """See the op."""
    lines, device = rows_N.shape[0], rows_N.device
    token_ids, positions = torch.empty((2, lines), dtype=torch.int64, device=device)
    seq_lens = torch.empty(lines, dtype=torch.int32, device=device)
    slots, tables = [], []
    for table, size in zip(state.tables, state.block_sizes, strict=True):
        width = table.shape[1]
        chunk = min(1024, next_power_of_2(width))
        slots.append(torch.empty(lines, dtype=torch.int64, device=device))
        tables.append(torch.empty((lines, width), dtype=torch.int32, device=device))
        _gather[(lines, cdiv(width, chunk))](
            rows_N, state.last, state.computed, table, token_ids, positions, seq_lens, slots[-1], tables[-1], width,
            size, chunk, num_warps=1, **CHAINED,
        )  # fmt: skip
    return Gathered(token_ids, positions, seq_lens, slots, tables)


@pick.kernel("triton", when=_on_gpu)
def pick_triton(logits_NV: torch.Tensor, rows_N: torch.Tensor, lens_N: torch.Tensor, state: RowState) -> torch.Tensor:
    """See the op; the logits stay as they are."""
    return pick_lines(logits_NV, rows_N, lens_N, state, None, state.told)


def pick_lines(
    logits_NV: torch.Tensor,
    rows_N: torch.Tensor,
    lens_N: torch.Tensor,
    state: RowState,
    options: RowOptions | None,
    told: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose for all lines, or with `options` for those that are not cut; the others' places are left empty."""
    lines, width = logits_NV.shape
    chunks, device = cdiv(width, _BLOCK), logits_NV.device
    each = cdiv(chunks, max(1, min(chunks, _PROGRAMS * (1 if lines < 64 else 2) // lines)))
    parts = cdiv(chunks, each)
    values = torch.empty((lines, parts), dtype=torch.float32, device=device)
    tokens = torch.empty((lines, parts), dtype=torch.int32, device=device)
    out = torch.empty(lines, dtype=torch.int64, device=device)
    o, unused = options, values
    cuts = (unused,) * 5 if o is None else (o.top_k, o.top_p, o.min_p, o.count_slot, o.counts)
    _best[(lines, parts)](
        logits_NV, rows_N, lens_N, state.temperature, state.seed, state.free_at, state.forbidden, *cuts, values, tokens,
        tickets(device, lines), state.last, state.computed, state.last if told is None else told, out, width,
        logits_NV.stride(0), each, LARGEST_U, FORBIDDEN, _BLOCK, next_power_of_2(chunks),
        state.last.shape[0] - 1, options is not None, 0 if told is None else PLACES, num_warps=4, **CHAINED,
    )  # fmt: skip
    return out
