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
from vllm.ops.cpu.lang import W
from vllm.ops.cpu.linear import NAMES_OF, SLAB, _here, blocks_for, pack_words
from vllm.ops.cpu.tiles import multiply, row_tiles
from vllm.ops.linear_int8 import Int8Weight, linear_int8, quantize_rows

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
    k, x, q, by, w, scale, shift, bias, out, tokens, rows, words, panels, slab, T, blocks, heights, with_bias,
):  # fmt: skip
    for t in k.share(tokens):
        _quantize(k, x + t * words * 4, q + t * words * 4, by + t, words * 4)
    k.barrier()
    slabs = (tokens + slab - 1) // slab
    full = rows // (16 * blocks)
    rest = (scale, shift, bias, by, out, rows, with_bias)
    for item in k.dynamic(panels * slabs):
        panel, first = item // slabs, item % slabs * slab
        last = k.minimum(first + slab, tokens)
        with k.choose(panel < full) as (whole, partial):
            with whole:
                _panel(k, q, w, first, last, words, panel * 16 * blocks, blocks, heights, rest)
            with partial:
                for col in k.range(panel * 16 * blocks, rows, 16):
                    _panel(k, q, w, first, last, words, col, 1, (heights[-2], 1), rest, True)


def _quantize(k, x, q, by, inner):
    """q = round(x * 127 / max|x|) + 128."""
    most = k.var(k.f32(0.0, W))
    for i in k.range(0, inner, W):
        most.v = k.maximum(most.v, k.abs((x + i).load_part(W, k.minimum(inner - i, k.const(W)))))
    top = most.v.max()
    back = (top > 0.0).where(k.f32(127.0) / top, 0.0)
    by.store(top / 127.0)
    for i in k.range(0, inner, W):
        inside = k.minimum(inner - i, k.const(W))
        v = k.round((x + i).load_part(W, inside) * back).to("i32") + 128
        (q + i).store_part(v.to("i8"), inside)


def _panel(k, q, w, first, last, words, col, blocks, heights, rest, edge=False):
    scale, shift, bias, by, out, rows, with_bias = rest
    start = first
    for height in heights:
        end = last - (last - start) % height
        for t in k.range(start, end, height):
            accs = [[k.var(k.i32(0, W)) for _ in range(blocks)] for _ in range(height)]
            xs = [(q + (t + r) * words * 4).cast("i32") for r in range(height)]
            ws = [w + (col + W * c) * words for c in range(blocks)]
            multiply(k, "i8", xs, ws, accs, words)
            for r in range(height):
                for c in range(blocks):
                    at = col + W * c
                    y = (accs[r][c].v - (shift + at).load(W)).to("f32") * (by + t + r).load() * (scale + at).load(W)
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
    values = torch.empty(rows, inner, dtype=torch.int8)
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
    q = torch.empty(tokens, packed.inner, dtype=torch.uint8)
    by, out = torch.empty(tokens), torch.empty(tokens, packed.rows, dtype=x.dtype)
    bias = None if bias_O is None else bias_O.float()
    call, width = _function(x.dtype, packed.rows, num_threads(), bias is not None)
    call(
        *(x.data_ptr(), q.data_ptr(), by.data_ptr(), *packed.addresses),
        0 if bias is None else bias.data_ptr(),
        out.data_ptr(),
        *(tokens, packed.rows, packed.inner // 4, -(-packed.rows // width), SLAB),
    )
    return out


@functools.cache
def _function(dtype: torch.dtype, rows: int, threads: int, with_bias: bool) -> tuple[Callable[..., None], int]:
    """(the kernel, rows of a panel)."""
    blocks, heights = row_tiles(features())
    blocks = blocks_for(rows, threads, blocks)
    return _linear_int8.get(T=NAMES_OF[dtype], blocks=blocks, heights=heights, with_bias=with_bias), 16 * blocks
