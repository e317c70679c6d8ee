"""Both ends of a decode step on a GPU: one kernel gathers a line's inputs, two choose its token and write it back.

Choosing reads the logits once: every line is cut over programs that mask, divide by temperature, add noise and keep
their best; the second kernel takes the best of those. Noise is the reference's, bit for bit.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.draw import LARGEST_U
from vllm.ops.rows import FORBIDDEN, Gathered, RowState, gather_rows, pick
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.draw import _log1p, _mix

_BLOCK = 4096


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
def _best(logits, rows, lens, temperatures, seeds, free_at, forbidden, values, tokens, V, stride,
          LARGEST: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    line, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    follow()
    row, length = tl.load(rows + line).to(tl.int64), tl.load(lens + line)
    at = part * BLOCK + tl.arange(0, BLOCK)
    score = tl.load(logits + line * stride + at, at < V, float("-inf")).to(tl.float32)
    if length < tl.load(free_at + row):
        for i in tl.static_range(F):
            score = tl.where(at == tl.load(forbidden + row * F + i), float("-inf"), score)
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        first, second = _keys(tl.load(seeds + row), length)
        x = at.to(tl.uint32) * 2654435761 + first
        x = _mix(_mix(x, second, True), second, False)
        u = tl.minimum((x.to(tl.int64) * 2 + 1).to(tl.float32) * (1.0 / 8589934592.0), LARGEST)
        noisy = tl.div_rn(score, temperature) - tl.log(-_log1p(-u))
        score = tl.where(score == float("-inf"), float("-inf"), noisy)
    top = tl.max(score, 0)
    tl.store(values + line * tl.num_programs(1) + part, top)
    tl.store(tokens + line * tl.num_programs(1) + part, tl.min(tl.where(score == top, at, 0x7FFFFFFF), 0))


@triton.jit
def _keep(values, tokens, rows, lens, last, computed, out, PARTS: tl.constexpr, PP: tl.constexpr, IDLE: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, PP)
    follow()
    value = tl.load(values + line * PARTS + i, i < PARTS, float("-inf"))
    token = tl.load(tokens + line * PARTS + i, i < PARTS, 0x7FFFFFFF)
    # why: a line without a finite logit still gives a token of the vocabulary
    best = tl.min(tl.where(value == tl.max(value, 0), token, 0x7FFFFFFF), 0)
    row = tl.load(rows + line)
    tl.store(out + line, best.to(tl.int64))
    if row != IDLE:
        tl.store(last + row, best)
        tl.store(computed + row, tl.load(lens + line))


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
        chunk = min(1024, triton.next_power_of_2(width))
        slots.append(torch.empty(lines, dtype=torch.int64, device=device))
        tables.append(torch.empty((lines, width), dtype=torch.int32, device=device))
        _gather[(lines, triton.cdiv(width, chunk))](
            rows_N, state.last, state.computed, table, token_ids, positions, seq_lens, slots[-1], tables[-1], width,
            size, chunk, num_warps=1, **CHAINED,
        )  # fmt: skip
    return Gathered(token_ids, positions, seq_lens, slots, tables)


@pick.kernel("triton", when=_on_gpu)
def pick_triton(logits_NV: torch.Tensor, rows_N: torch.Tensor, lens_N: torch.Tensor, state: RowState) -> torch.Tensor:
    """See the op; the logits stay as they are."""
    lines, width = logits_NV.shape
    parts, device = triton.cdiv(width, _BLOCK), logits_NV.device
    values = torch.empty((lines, parts), dtype=torch.float32, device=device)
    tokens = torch.empty((lines, parts), dtype=torch.int32, device=device)
    out = torch.empty(lines, dtype=torch.int64, device=device)
    _best[(lines, parts)](
        logits_NV, rows_N, lens_N, state.temperature, state.seed, state.free_at, state.forbidden, values, tokens, width,
        logits_NV.stride(0), LARGEST_U, FORBIDDEN, _BLOCK, num_warps=8, **CHAINED,
    )  # fmt: skip
    _keep[(lines,)](
        values, tokens, rows_N, lens_N, state.last, state.computed, out, parts, triton.next_power_of_2(parts),
        state.last.shape[0] - 1, num_warps=1, **CHAINED,
    )  # fmt: skip
    return out
