"""A small vector language: Python code that runs once and leaves LLVM IR behind, which becomes a CPU kernel.

    for i in k.range(0, dim, W):          # a loop of the kernel; the body is traced once
        acc.v += (x + i).load(W) * 2.0    # `k.var` is what a loop changes; the rest is written once

Loads of bf16 widen to float32, stores round to nearest even. Everything else is float32 or signed integers.
Does not know: threads, torch, how a kernel is called (`jit.py`). Invariant: nothing here runs when llvmlite is absent;
vectors are generic LLVM vectors, so any CPU runs them, and instructions of one CPU are asked for by name (`features`).
What is computed with is in `values.py`. Called by: the kernels beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from vllm.ops.cpu.values import BYTE_PTR, ELEMS, F32, I16, I32, Ptr, Val, Var, Writer, bits_of, vector


class Trace(Writer):
    """What a kernel body writes with: loops, conditions, and the mathematics of vectors."""

    def var(self, first: Val | float) -> Var:
        """A variable with its first value (a Python float makes a float32 scalar, an int an int64)."""
        if not isinstance(first, Val):
            first = self.f32(first) if isinstance(first, float) else self.const(first)
        return Var(self, first)

    def scratch(self, elem: str, count: int) -> Ptr:
        """Memory of this thread for the time of the call: `count` elements on its stack, 64-byte aligned."""
        with self.b.goto_entry_block():
            room = self.b.alloca(ir.ArrayType(ELEMS[elem][0], count))
            room.align = 64
            return Ptr(self, self.b.bitcast(room, BYTE_PTR), elem)

    def range(self, lo: Any, hi: Any, step: Any = 1) -> Iterator[Val]:
        """A loop: `for i in k.range(...)` runs its body once here and many times in the kernel."""
        b = self.b
        lo, hi, step = (x if isinstance(x, Val) else self.const(x) for x in (lo, hi, step))
        i = self.var(lo)
        head, body, done = (b.append_basic_block(n) for n in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        at = i.v
        b.cbranch((at < hi).v, body, done)
        b.position_at_end(body)
        yield at
        i.v = at + step
        b.branch(head)
        b.position_at_end(done)

    @contextmanager
    def when(self, cond: Val) -> Iterator[None]:
        """The block runs where `cond` (a scalar comparison) holds."""
        with self.b.if_then(cond.v):
            yield

    @contextmanager
    def choose(self, cond: Val) -> Iterator[tuple[Any, Any]]:
        """Two context managers: what runs when `cond` holds, and what runs otherwise."""
        with self.b.if_else(cond.v) as (yes, no):
            yield yes, no

    def _call(self, name: str, *args: Val) -> Val:
        t = args[0].v.type
        kind = ("f" if args[0].is_float else "i") + str(bits_of(args[0].elem))
        suffix = f"v{args[0].lanes}{kind}" if args[0].lanes > 1 else kind
        fn = self.intrinsic(f"llvm.{name}.{suffix}", t, [a.v.type for a in args])
        return Val(self, self.b.call(fn, [a.v for a in args]))

    def fma(self, a: Val, c: Val, d: Val) -> Val:
        """a * c + d, rounded once."""
        lanes = max(a.lanes, c.lanes, d.lanes)
        return self._call("fma", a.splat(lanes), c.splat(lanes), d.splat(lanes))

    def sqrt(self, x: Val) -> Val:
        """Square root."""
        return self._call("sqrt", x)

    def floor(self, x: Val) -> Val:
        """Largest whole number that is not larger."""
        return self._call("floor", x)

    def round(self, x: Val) -> Val:
        """Nearest whole number, halves to even."""
        return self._call("rint", x)

    def abs(self, x: Val) -> Val:
        """Absolute value of a float."""
        return self._call("fabs", x)

    def cat(self, a: Val, c: Val) -> Val:
        """The lanes of `a`, then those of `c`."""
        n = 2 * a.lanes
        mask = ir.Constant(vector(I32, n), [I32(j) for j in range(n)])
        return Val(self, self.b.shuffle_vector(a.v, c.v, mask))

    def shuffle(self, a: Val, c: Val, lanes: list[int]) -> Val:
        """Any lanes of `a` (0..n-1) and `c` (n..2n-1)."""
        mask = ir.Constant(vector(I32, len(lanes)), [I32(j) for j in lanes])
        return Val(self, self.b.shuffle_vector(a.v, c.v, mask))

    def dot_bf16(self, acc: Val, a: Val, c: Val) -> Val:
        """acc[j] + a[2j] c[2j] + a[2j+1] c[2j+1] over 2 x 16 raw bf16 lanes (AVX512-BF16 when there is one)."""
        if "avx512bf16" in self.features and acc.lanes == 16:
            t, i = acc.v.type, vector(I32, 16)
            fn = self.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", t, [t, i, i])
            return Val(self, self.b.call(fn, [acc.v, a.bits(I32).v, c.bits(I32).v]))
        a, c = a.bits(I32), c.bits(I32)
        low = self.fma((a << 16).bits(F32), (c << 16).bits(F32), acc)
        return self.fma((a & -65536).bits(F32), (c & -65536).bits(F32), low)

    def ashr(self, x: Val, n: int) -> Val:
        """Arithmetic shift: copies of the sign come in from the left."""
        return Val(self, self.b.ashr(x.v, self.const(n, x.elem).splat(x.lanes).v))

    def dot_i16(self, acc: Val, a: Val, c: Val) -> Val:
        """acc[j] + a[2j] c[2j] + a[2j+1] c[2j+1] over pairs of int16 in int32 lanes (AVX2 when there is one)."""
        if "avx2" in self.features and acc.lanes == 16:
            t, pairs = vector(I32, 8), vector(I16, 16)
            fn = self.intrinsic("llvm.x86.avx2.pmadd.wd", t, [pairs, pairs])
            halves = [(a.part(h, 8).bits(I16), c.part(h, 8).bits(I16)) for h in (0, 8)]
            sums = [Val(self, self.b.call(fn, [x.v, y.v])) for x, y in halves]
            return acc + self.cat(*sums)
        low = self.ashr(a << 16, 16) * self.ashr(c << 16, 16)
        return acc + low + self.ashr(a, 16) * self.ashr(c, 16)

    def dot_u8i8(self, acc: Val, a: Val, c: Val) -> Val:
        """acc[j] + sum over 4 of a[4j+i] (unsigned) * c[4j+i] (signed): int32 lanes, 64 raw bytes each side."""
        if "avx512vnni" in self.features and acc.lanes == 16:
            t = acc.v.type
            fn = self.intrinsic("llvm.x86.avx512.vpdpbusd.512", t, [t, t, t])
            return Val(self, self.b.call(fn, [acc.v, a.bits(I32).v, c.bits(I32).v]))
        for i in range(4):
            wide_a = (a.bits(I32) >> (8 * i)) & 255
            wide_c = Val(self, self.b.ashr((c.bits(I32) << (24 - 8 * i)).v, self.i32(24, acc.lanes).v))
            acc = acc + wide_a * wide_c
        return acc
