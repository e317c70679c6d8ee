"""W8A8 for any number of tokens: quantize the step's tokens, wait for all threads, multiply. T tokens, E in, O out.

Packed like `linear.py`, four int8 to a word. Activations are held as q + 128, since the instruction multiplies unsigned
by signed bytes; 128 times the sum of a weight row (`shift`) is taken off again. Integer sums are exact, so nothing
depends on the order of adding. Without VNNI instructions the same words are multiplied by hand, several times slower.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vllm.ops.cpu.jit import features, kernel, num_threads
from vllm.ops.cpu.linear import NAMES_OF, SLAB, _here, blocks_for, pack_words
from vllm.ops.cpu.tiles import EDGE, FEW, asked, looks_ahead, multiply, shapes, spreads, walk
from vllm.ops.cpu.values import W
from vllm.ops.linear_int8 import Int8Weight, linear_int8, quantize_rows
from vllm.platforms.pages import passing

_PIECE = 4096
"""Rows quantized at a time while packing: the float32 copy stays small."""


@dataclass(frozen=True, slots=True)
class PackedInt8:
    """A weight [O, E] in blocks of 16 rows, with scale and 128 times the sum of each row; zeros fill the last block."""

    data: torch.Tensor
    """[ceil(O / 16), E / 4, 16] int32: words of four int8"""
    scale: torch.Tensor
    shift: torch.Tensor
    rows: int
    inner: int
    addresses: tuple[int, int, int]
    """Of data, scale and shift."""


@kernel(
    "x:T* q:u8* by:f32* w:i32* scale:f32* shift:i32* bias:f32* out:T* tokens rows words panels slab",
)
def _linear_int8(
    k, x, q, by, w, scale, shift, bias, out, tokens, rows, words, panels, slab, T, blocks, tiles, with_bias, ahead,
):  # fmt: skip
    spread = spreads("i8", k.features)
    width = words * (8 if spread else 4)
    for t in k.share(tokens):
        _quantize(k, x + t * words * 4, q + t * width, by + t, words * 4, spread)
    k.barrier()
    slabs = (tokens + slab - 1) // slab
    full = rows // (16 * blocks)
    rest = (scale, shift, bias, by, out, rows, with_bias, spread, ahead)
    for item in k.dynamic(panels * slabs):
        panel, first = item // slabs, item % slabs * slab
        last = k.minimum(first + slab, tokens)
        with k.choose(panel < full) as (whole, partial):
            with whole:
                _panel(k, q, w, first, last, words, panel * 16 * blocks, blocks, tiles, rest)
            with partial:
                for col in k.range(panel * 16 * blocks, rows, 16):
                    _panel(k, q, w, first, last, words, col, 1, EDGE, rest, True)


def _quantize(k, x, q, by, inner, spread):
    """q = round(x * 127 / max|x|) + 128. Spread, a word of four becomes two of two int16: even members, odd ones."""
    most = k.var(k.f32(0.0, W))
    for i in k.range(0, inner, W):
        most.v = k.maximum(most.v, k.abs((x + i).load_part(W, k.minimum(inner - i, k.const(W)))))
    top = most.v.max()
    back = (top > 0.0).where(k.f32(127.0) / top, 0.0)
    by.store(top / 127.0)
    for i in k.range(0, inner, W):
        inside = k.minimum(inner - i, k.const(W))
        v = k.round((x + i).load_part(W, inside) * back).to("i32") + 128
        if spread:
            in_pairs = k.shuffle(v, v, [4 * (j // 4) + (0, 2, 1, 3)[j % 4] for j in range(W)])
            (q.cast("i16") + i).store_part(in_pairs.to("i16"), inside)
        else:
            (q + i).store_part(v.to("i8"), inside)


def _panel(k, q, w, first, last, words, col, blocks, tiles, rest, edge=False):
    scale, shift, bias, by, out, rows, with_bias, spread, ahead = rest
    start, width = first, words * (8 if spread else 4)
    for height, most in tiles:
        num = min(most, blocks)
        end = last - (last - start) % height
        for t, here, following in walk(k, start, end, col, blocks, num, height, ahead and not edge):
            xs = [(q + (t + r) * width).cast("i32") for r in range(height)]
            accs = [[k.var(k.i32(0, W)) for _ in range(num)] for _ in range(height)]
            ws = [w + (here + W * c) * words for c in range(num)]
            later = asked(w, following, num, words, (t - first) // height)
            multiply(k, "i8", xs, ws, accs, words, spread=spread, ahead=later)
            for r in range(height):
                for c in range(num):
                    at = here + W * c
                    y = (accs[r][c].v - (shift + at).load(W)).to("f32")
                    y = y * (by + t + r).load() * (scale + at).load(W)
                    place = out + (t + r) * rows + at
                    if with_bias:
                        y = y + (bias + at).load_part(W, k.minimum(rows - at, k.const(W)))
                    place.store_part(y, rows - at) if edge else place.store(y)
        start = end


def pack(weight_OE: torch.Tensor) -> object:
    """The weight quantized by rows and packed; the reference's form for an inner size that is no multiple of four."""
    rows, inner = weight_OE.shape
    if inner % 4:
        return Int8Weight(*quantize_rows(weight_OE))
    blocks = -(-rows // 16)
    values = passing((rows, inner), torch.int8)
    scale, shift = torch.zeros(blocks * 16), torch.zeros(blocks * 16, dtype=torch.int32)
    for first in range(0, rows, _PIECE):
        last = min(first + _PIECE, rows)
        values[first:last], scale[first:last] = quantize_rows(weight_OE[first:last])
        shift[first:last] = 128 * values[first:last].sum(-1, dtype=torch.int32)
    data = pack_words(values, rows, inner // 4)
    addresses = data.data_ptr(), scale.data_ptr(), shift.data_ptr()
    return PackedInt8(data, scale, shift, rows, inner, addresses)


@linear_int8.kernel("jit", when=_here, pack=pack)
def linear_int8_jit(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """As the reference, up to the rounding of the last scaling."""
    if not isinstance(packed, PackedInt8):
        return linear_int8(x_TE, packed, bias_O)
    tokens, x = x_TE.shape[0], x_TE.contiguous()
    by, out = torch.empty(tokens), torch.empty(tokens, packed.rows, dtype=x.dtype)
    bias = None if bias_O is None else bias_O.float()
    call, width, wide = _function(x.dtype, packed.rows, num_threads(), bias is not None, tokens <= FEW)
    q = torch.empty(tokens, packed.inner * wide, dtype=torch.uint8)
    call(
        *(x.data_ptr(), q.data_ptr(), by.data_ptr(), *packed.addresses),
        0 if bias is None else bias.data_ptr(),
        out.data_ptr(),
        *(tokens, packed.rows, packed.inner // 4, -(-packed.rows // width), SLAB),
    )
    return out


@functools.cache
def _function(
    dtype: torch.dtype, rows: int, threads: int, with_bias: bool, few: bool
) -> tuple[Callable[..., None], int, int]:
    """(the kernel, rows of a panel, bytes of a quantized activation)."""
    tiles = shapes(features(), few)
    blocks = blocks_for(rows, threads, tiles[-1][1])
    ahead = looks_ahead("i8", features(), few)
    call = _linear_int8.get(T=NAMES_OF[dtype], blocks=blocks, tiles=tiles, with_bias=with_bias, ahead=ahead)
    return call, 16 * blocks, 2 if spreads("i8", features()) else 1
