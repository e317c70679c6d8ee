"""Choosing tokens with every option on a GPU, in three kernels that rows without options leave at once.

    _apply   (line, part)  bias, penalties; for lines that are cut also min_tokens and the division by temperature
    _best    (line, part)  lines that are not cut: `rows.py`
    _cut     (line)        lines with top_k, top_p or min_p

A cut needs no sorting. min_p is a bound by itself; the k-th largest logit is found by counting, four times finer with
each pass. For top_p a token is proposed by its noise among all that are left: it holds if those above it weigh less
than p of the whole; if not, neither it nor any below it is inside, and the best of those above is proposed next. That
is the token that noise over the cut line would have chosen. Called by: worker, through `pick_any`.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.draw import LARGEST_U
from vllm.ops.rows import FORBIDDEN, SEEN, RowState, pick_any
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.rows import _keys, _winner, pick_lines
from vllm.util.arith import cdiv

_BLOCK, _CHUNK = 4096, 8192


@triton.jit
def _is_cut(row, temperatures, top_k, top_p, min_p):
    """The line of a row is cut."""
    some = (tl.load(top_k + row) > 0) | (tl.load(top_p + row) < 1.0) | (tl.load(min_p + row) > 0.0)
    return some & (tl.load(temperatures + row) > 0.0)


@triton.jit
def _apply(logits, rows, lens, temperatures, free_at, forbidden, top_k, top_p, min_p, presence, frequency, repetition,
           count_slot, bias_slot, counts, bias, V, stride, SEEN: tl.constexpr, F: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    line, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    follow()
    row = tl.load(rows + line).to(tl.int64)
    cut = _is_cut(row, temperatures, top_k, top_p, min_p)
    slot, add = tl.load(count_slot + row).to(tl.int64), tl.load(bias_slot + row).to(tl.int64)
    if (not cut) & (slot == 0) & (add == 0):
        return
    at = part * BLOCK + tl.arange(0, BLOCK)
    there = at < V
    x = tl.load(logits + line * stride + at, there, float("-inf"))
    if add > 0:
        x += tl.load(bias + add * V + at, there, 0.0)
    if slot > 0:
        count = tl.load(counts + slot * V + at, there, 0).to(tl.int32)
        output = count & (SEEN - 1)
        factor = tl.load(repetition + row)
        x = tl.where(count > 0, tl.where(x > 0, tl.div_rn(x, factor), x * factor), x)
        less = tl.load(frequency + row) * output.to(tl.float32) + tl.load(presence + row)
        x = x - tl.where(output > 0, less, 0.0)
    if cut:
        if tl.load(lens + line) < tl.load(free_at + row):
            for i in tl.static_range(F):
                x = tl.where(at == tl.load(forbidden + row * F + i), float("-inf"), x)
        x = tl.div_rn(x, tl.load(temperatures + row))
    tl.store(logits + line * stride + at, x, there)


@triton.jit
def _order(x):
    """Whole numbers in the order of floats."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _largest(x, V, CHUNK: tl.constexpr):
    best = tl.full((CHUNK,), float("-inf"), tl.float32)
    for start in range(0, V, CHUNK):
        at = start + tl.arange(0, CHUNK)
        best = tl.maximum(best, tl.load(x + at, at < V, float("-inf")))
    return tl.max(best, 0)


@triton.jit
def _as_many(x, V, a, b, c, CHUNK: tl.constexpr):
    """How many are at least a, b and c."""
    na = tl.zeros((CHUNK,), tl.int32)
    nb = tl.zeros((CHUNK,), tl.int32)
    nc = tl.zeros((CHUNK,), tl.int32)
    for start in range(0, V, CHUNK):
        at = start + tl.arange(0, CHUNK)
        order = _order(tl.load(x + at, at < V, float("-inf"))).to(tl.int64)
        inside = at < V
        na += (inside & (order >= a)).to(tl.int32)
        nb += (inside & (order >= b)).to(tl.int32)
        nc += (inside & (order >= c)).to(tl.int32)
    return tl.sum(na, 0), tl.sum(nb, 0), tl.sum(nc, 0)


@triton.jit
def _kth(x, V, k, best, CHUNK: tl.constexpr):
    """A number that exactly k reach, or the k-th largest where equal ones are at the edge."""
    low, high = tl.full((), -(1 << 31), tl.int64), _order(best).to(tl.int64) + 1
    a, b, c = _order(best - 32.0).to(tl.int64), _order(best - 8.0).to(tl.int64), _order(best - 2.0).to(tl.int64)
    going = high - low > 1
    while going:
        na, nb, nc = _as_many(x, V, a, b, c, CHUNK)
        exact = (na == k) | (nb == k) | (nc == k)
        high = tl.where(nc >= k, high, tl.where(nb >= k, c, tl.where(na >= k, b, a)))
        low = tl.where(nc >= k, c, tl.where(nb >= k, b, tl.where(na >= k, a, low)))
        if exact:
            low = tl.where(nc == k, c, tl.where(nb == k, b, a))
        going = (not exact) & (high - low > 1)
        width = high - low
        a, b, c = low + width // 4, low + width // 2, low + width * 3 // 4
    bits = low.to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _propose(x, V, bound, best, first, second, STRICT: tl.constexpr, LARGEST: tl.constexpr, CHUNK: tl.constexpr):
    """Of those at least (STRICT: above) `bound`: the token that noise prefers, and the weight of all."""
    mass = tl.zeros((CHUNK,), tl.float32)
    top, token = tl.full((), float("-inf"), tl.float32), tl.full((), 0, tl.int32)
    for start in range(0, V, CHUNK):
        at = start + tl.arange(0, CHUNK)
        value = tl.load(x + at, at < V, float("-inf"))
        inside = value > bound if STRICT else value >= bound
        value = tl.where(inside, value, float("-inf"))
        mass += tl.exp(value - best)
        if tl.max(value, 0) > float("-inf"):
            score, which = _winner(x, value, at, 1.0, first, second, LARGEST)
            token = tl.where(score > top, which, token)
            top = tl.maximum(score, top)
    return token, tl.sum(mass, 0)


@triton.jit
def _cut(logits, rows, lens, temperatures, seeds, top_k, top_p, min_p, count_slot, counts, last, computed, out, V,
         stride, LARGEST: tl.constexpr, IDLE: tl.constexpr, CHUNK: tl.constexpr):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    follow()
    row = tl.load(rows + line).to(tl.int64)
    if not _is_cut(row, temperatures, top_k, top_p, min_p):
        return
    x, length = logits + line * stride, tl.load(lens + line)
    first, second = _keys(tl.load(seeds + row), length)
    best = _largest(x, V, CHUNK)
    k, p, low = tl.load(top_k + row), tl.load(top_p + row), tl.load(min_p + row)
    bound = tl.full((), float("-inf"), tl.float32)
    if low > 0:
        bound = best + tl.log(low)
    if (k > 0) & (k < V) & (best > float("-inf")):
        bound = tl.maximum(bound, _kth(x, V, k, best, CHUNK))
    token, total = _propose(x, V, bound, best, first, second, False, LARGEST, CHUNK)
    going = p < 1.0
    while going:
        higher, above = _propose(x, V, tl.load(x + token), best, first, second, True, LARGEST, CHUNK)
        # why: not a number, where no logit is finite, ends this too
        going = above >= p * total
        token = tl.where(going, higher, token)
    tl.store(out + line, token.to(tl.int64))
    if row != IDLE:
        tl.store(last + row, token)
        tl.store(computed + row, length)
        slot = tl.load(count_slot + row).to(tl.int64)
        if slot > 0:
            place = counts + slot * V + token
            tl.store(place, tl.load(place) + 1)


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@pick_any.kernel("triton", when=_on_gpu)
def pick_any_triton(
    logits_NV: torch.Tensor, rows_N: torch.Tensor, lens_N: torch.Tensor, state: RowState
) -> torch.Tensor:
    """See the op."""
    o, (lines, width) = state.options, logits_NV.shape
    assert o is not None, "rows without options are for `pick`"
    cuts = o.top_k, o.top_p, o.min_p
    _apply[(lines, cdiv(width, _BLOCK))](
        logits_NV, rows_N, lens_N, state.temperature, state.free_at, state.forbidden, *cuts, o.presence, o.frequency,
        o.repetition, o.count_slot, o.bias_slot, o.counts, o.bias, width, logits_NV.stride(0), SEEN, FORBIDDEN, _BLOCK,
        num_warps=8, enable_fp_fusion=False, **CHAINED,
    )  # fmt: skip
    out = pick_lines(logits_NV, rows_N, lens_N, state, o)
    _cut[(lines,)](
        logits_NV, rows_N, lens_N, state.temperature, state.seed, *cuts, o.count_slot, o.counts, state.last,
        state.computed, out, width, logits_NV.stride(0), LARGEST_U, state.last.shape[0] - 1, _CHUNK, num_warps=16,
        **CHAINED,
    )  # fmt: skip
    return out
