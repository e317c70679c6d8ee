"""A small vector language: Python code that runs once and leaves LLVM IR behind, which becomes a CPU kernel.

    for i in k.range(0, dim, W):          # a loop of the kernel; the body is traced once
        acc.v += (x + i).load(W) * 2.0    # `k.var` is what a loop changes; the rest is written once

Loads of bf16 widen to float32, stores round to nearest even. Everything else is float32 or signed integers.
Does not know: threads, torch, how a kernel is called (`jit.py`). Invariant: nothing here runs when llvmlite is absent;
vectors are generic LLVM vectors, so any CPU runs them, and instructions of one CPU are asked for by name (`features`).
Called by: the kernels beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

W = 16
"""Lanes of a float32 vector: one AVX-512 register, two AVX2 ones."""

I1, I8, I16, I32, I64, F32 = (
    ir.IntType(1),
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
)
BYTE_PTR = I8.as_pointer()
ELEMS: dict[str, tuple[ir.Type, int]] = {
    "f32": (F32, 4),
    "bf16": (I16, 2),
    "i8": (I8, 1),
    "u8": (I8, 1),
    "i16": (I16, 2),
    "i32": (I32, 4),
    "i64": (I64, 8),
}
FAST = ("nsz", "contract")


def vector(elem: ir.Type, lanes: int) -> ir.Type:
    """A vector type, or the scalar for one lane."""
    return elem if lanes == 1 else ir.VectorType(elem, lanes)


class Val:
    """A value of the kernel: a scalar or a vector. Python numbers beside it take its type."""

    __slots__ = ("k", "v")

    def __init__(self, k: Trace, v: ir.Value) -> None:
        self.k, self.v = k, v

    @property
    def lanes(self) -> int:
        return self.v.type.count if isinstance(self.v.type, ir.VectorType) else 1

    @property
    def elem(self) -> ir.Type:
        return self.v.type.element if isinstance(self.v.type, ir.VectorType) else self.v.type

    @property
    def is_float(self) -> bool:
        return isinstance(self.elem, ir.FloatType)

    def _two(self, other: Any) -> tuple[ir.Value, ir.Value, int, ir.Type]:
        o = other if isinstance(other, Val) else self.k.const(other, self.elem)
        lanes = max(self.lanes, o.lanes)
        return self.splat(lanes).v, o.splat(lanes).v, lanes, self.elem

    def splat(self, lanes: int) -> Val:
        """The scalar in every lane."""
        if self.lanes == lanes:
            return self
        assert self.lanes == 1
        if isinstance(self.v, ir.Constant):
            return Val(self.k, ir.Constant(vector(self.elem, lanes), [self.v.constant] * lanes))
        t = vector(self.elem, lanes)
        one = self.k.b.insert_element(ir.Constant(t, ir.Undefined), self.v, I32(0))
        return Val(
            self.k, self.k.b.shuffle_vector(one, ir.Constant(t, ir.Undefined), ir.Constant(vector(I32, lanes), None))
        )

    def _op(self, other: Any, f: str, i: str, swap: bool = False) -> Val:
        a, c, _, _ = self._two(other)
        if swap:
            a, c = c, a
        if self.is_float:
            return Val(self.k, getattr(self.k.b, f)(a, c, flags=FAST))
        return Val(self.k, getattr(self.k.b, i)(a, c))

    def __add__(self, o: Any) -> Val:
        return self._op(o, "fadd", "add")

    def __radd__(self, o: Any) -> Val:
        return self._op(o, "fadd", "add", True)

    def __sub__(self, o: Any) -> Val:
        return self._op(o, "fsub", "sub")

    def __rsub__(self, o: Any) -> Val:
        return self._op(o, "fsub", "sub", True)

    def __mul__(self, o: Any) -> Val:
        return self._op(o, "fmul", "mul")

    def __rmul__(self, o: Any) -> Val:
        return self._op(o, "fmul", "mul", True)

    def __truediv__(self, o: Any) -> Val:
        return self._op(o, "fdiv", "sdiv")

    def __rtruediv__(self, o: Any) -> Val:
        return self._op(o, "fdiv", "sdiv", True)

    def __floordiv__(self, o: Any) -> Val:
        return self._op(o, "fdiv", "sdiv")

    def __mod__(self, o: Any) -> Val:
        return self._op(o, "frem", "srem")

    def __and__(self, o: Any) -> Val:
        return self._op(o, "", "and_")

    def __or__(self, o: Any) -> Val:
        return self._op(o, "", "or_")

    def __xor__(self, o: Any) -> Val:
        return self._op(o, "", "xor")

    def __lshift__(self, o: Any) -> Val:
        return self._op(o, "", "shl")

    def __rshift__(self, o: Any) -> Val:
        """Logical shift: zeros come in from the left."""
        return self._op(o, "", "lshr")

    def __neg__(self) -> Val:
        return self._op(0, "fsub", "sub", True)

    def _cmp(self, op: str, o: Any) -> Val:
        a, c, _, _ = self._two(o)
        return Val(self.k, self.k.b.fcmp_ordered(op, a, c) if self.is_float else self.k.b.icmp_signed(op, a, c))

    def __lt__(self, o: Any) -> Val:
        return self._cmp("<", o)

    def __le__(self, o: Any) -> Val:
        return self._cmp("<=", o)

    def __gt__(self, o: Any) -> Val:
        return self._cmp(">", o)

    def __ge__(self, o: Any) -> Val:
        return self._cmp(">=", o)

    def eq(self, o: Any) -> Val:
        """Equal; `==` keeps its Python meaning."""
        return self._cmp("==", o)

    def ne(self, o: Any) -> Val:
        """Not equal."""
        return self._cmp("!=", o)

    def ult(self, o: Any) -> Val:
        """Less than, both read as unsigned."""
        a, c, _, _ = self._two(o)
        return Val(self.k, self.k.b.icmp_unsigned("<", a, c))

    def where(self, yes: Any, no: Any) -> Val:
        """`yes` where this comparison holds, else `no`."""
        y = yes if isinstance(yes, Val) else self.k.const(yes, no.elem)
        n = no if isinstance(no, Val) else self.k.const(no, y.elem)
        lanes = max(self.lanes, y.lanes, n.lanes)
        mask = self if self.lanes == 1 else self.splat(lanes)
        return Val(self.k, self.k.b.select(mask.v, y.splat(lanes).v, n.splat(lanes).v))

    def bits(self, elem: ir.Type) -> Val:
        """The same bits read as another type of equal size (or as fewer or more lanes of it)."""
        size = self.lanes * _bits(self.elem)
        return Val(self.k, self.k.b.bitcast(self.v, vector(elem, size // _bits(elem))))

    def to(self, name: str) -> Val:
        """Convert to f32, i32, i64 (signed), i16 or i8 (cut)."""
        b, t = self.k.b, vector(ELEMS[name][0], self.lanes)
        if self.v.type == t:
            return self
        if self.is_float:
            return Val(self.k, b.fptosi(self.v, t))
        if name == "f32":
            return Val(self.k, b.sitofp(self.v, t))
        return Val(self.k, (b.sext if _bits(t) > _bits(self.v.type) else b.trunc)(self.v, t))

    def unsigned(self, name: str) -> Val:
        """Widen an integer with zeros, or turn a comparison into 0 and 1."""
        return Val(self.k, self.k.b.zext(self.v, vector(ELEMS[name][0], self.lanes)))

    def any(self) -> Val:
        """Does a vector comparison hold in any lane?"""
        return self.bits(ir.IntType(self.lanes)).ne(0)

    def unsigned_float(self) -> Val:
        """An integer read as unsigned, as float32."""
        return Val(self.k, self.k.b.uitofp(self.v, vector(F32, self.lanes)))

    def part(self, start: int, lanes: int) -> Val:
        """`lanes` neighbouring lanes from `start` on."""
        if lanes == 1:
            return self.lane(start)
        mask = ir.Constant(vector(I32, lanes), [I32(start + j) for j in range(lanes)])
        return Val(self.k, self.k.b.shuffle_vector(self.v, ir.Constant(self.v.type, ir.Undefined), mask))

    def lane(self, i: Any) -> Val:
        """One lane as a scalar."""
        idx = i.to("i32").v if isinstance(i, Val) else I32(i)
        return Val(self.k, self.k.b.extract_element(self.v, idx))

    def _fold(self, step: Callable[[Val, Val], Val]) -> Val:
        x, lanes = self, self.lanes
        while lanes > 1:
            lanes //= 2
            x = step(x.part(0, lanes), x.part(lanes, lanes))
        return x

    def sum(self) -> Val:
        """Sum of the lanes, in a fixed order (halves onto halves)."""
        return self._fold(lambda a, c: a + c)

    def max(self) -> Val:
        """Largest lane."""
        return self._fold(lambda a, c: self.k.maximum(a, c))

    def min(self) -> Val:
        """Smallest lane."""
        return self._fold(lambda a, c: self.k.minimum(a, c))


class Ptr:
    """An address with an element type; `+` counts elements."""

    __slots__ = ("elem", "k", "v")

    def __init__(self, k: Trace, v: ir.Value, elem: str) -> None:
        self.k, self.v, self.elem = k, v, elem

    def __add__(self, i: Any) -> Ptr:
        size = ELEMS[self.elem][1]
        off = i * size if isinstance(i, Val) else self.k.const(i * size, I64)
        return Ptr(self.k, self.k.b.gep(self.v, [off.to("i64").v]), self.elem)

    def cast(self, elem: str) -> Ptr:
        """The same address, other elements."""
        return Ptr(self.k, self.v, elem)

    def _typed(self, lanes: int) -> ir.Value:
        return self.k.b.bitcast(self.v, vector(ELEMS[self.elem][0], lanes).as_pointer())

    def raw(self, lanes: int = 1) -> Val:
        """Load without conversion: bf16 stays 16-bit integers."""
        return Val(self.k, self.k.b.load(self._typed(lanes), align=ELEMS[self.elem][1]))

    def load(self, lanes: int = 1) -> Val:
        """Load; bf16 becomes float32, u8 becomes i32."""
        x = self.raw(lanes)
        if self.elem == "bf16":
            return (x.unsigned("i32") << 16).bits(F32)
        return x.unsigned("i32") if self.elem == "u8" else x

    def store(self, x: Val) -> None:
        """Store; float32 is rounded to nearest even for bf16."""
        if self.elem == "bf16" and x.is_float:
            x = self.k.bf16(x)
        assert x.elem == ELEMS[self.elem][0], (x.elem, self.elem)
        self.k.b.store(x.v, self._typed(x.lanes), align=ELEMS[self.elem][1])

    def load_part(self, lanes: int, count: Val, other: float | int = 0) -> Val:
        """The first `count` of `lanes` elements, `other` in the rest; memory past them is not touched."""
        t = vector(ELEMS[self.elem][0], lanes)
        bits = _bits(t.element)
        name = f"llvm.masked.load.v{lanes}{'f' if isinstance(t.element, ir.FloatType) else 'i'}{bits}.p0"
        fn = self.k.intrinsic(name, t, [t.as_pointer(), I32, vector(I1, lanes), t])
        rest = self.k.const(other, t.element).splat(lanes)
        args = [self._typed(lanes), I32(ELEMS[self.elem][1]), self.k.first(lanes, count).v, rest.v]
        x = Val(self.k, self.k.b.call(fn, args))
        if self.elem == "bf16":
            return (x.unsigned("i32") << 16).bits(F32)
        return x

    def store_part(self, x: Val, count: Val) -> None:
        """Store the first `count` lanes only."""
        if self.elem == "bf16" and x.is_float:
            x = self.k.bf16(x)
        kind = f"v{x.lanes}{'f' if x.is_float else 'i'}{_bits(x.elem)}"
        fn = self.k.intrinsic(
            f"llvm.masked.store.{kind}.p0",
            ir.VoidType(),
            [x.v.type, x.v.type.as_pointer(), I32, vector(I1, x.lanes)],
        )
        args = [x.v, self._typed(x.lanes), I32(ELEMS[self.elem][1]), self.k.first(x.lanes, count).v]
        self.k.b.call(fn, args)

    def prefetch(self) -> None:
        """Ask for the line at this address."""
        fn = self.k.intrinsic("llvm.prefetch.p0", ir.VoidType(), [BYTE_PTR, I32, I32, I32])
        self.k.b.call(fn, [self.v, I32(0), I32(3), I32(1)])

    def unless(self, cond: Val, other: Ptr) -> Ptr:
        """`other` where `cond` holds, else this address."""
        return Ptr(self.k, self.k.b.select(cond.v, other.v, self.v), self.elem)


class Var:
    """What a loop changes: read and written through `.v`."""

    __slots__ = ("k", "slot")

    def __init__(self, k: Trace, first: Val) -> None:
        self.k = k
        with k.b.goto_entry_block():
            self.slot = k.b.alloca(first.v.type)
        k.b.store(first.v, self.slot)

    @property
    def v(self) -> Val:
        return Val(self.k, self.k.b.load(self.slot))

    @v.setter
    def v(self, x: Val) -> None:
        self.k.b.store(x.v, self.slot)


class Trace:
    """What a kernel body writes with: loops, conditions, constants and the mathematics of vectors."""

    def __init__(self, module: ir.Module, builder: ir.IRBuilder, features: frozenset[str]) -> None:
        self.module, self.b, self.features = module, builder, features

    def const(self, x: float | int, t: ir.Type = I64) -> Val:
        """A constant of a type."""
        return Val(self, ir.Constant(t, float(x) if isinstance(t, ir.FloatType) else int(x)))

    def f32(self, x: float, lanes: int = 1) -> Val:
        """A float32 constant."""
        return self.const(x, F32).splat(lanes)

    def i32(self, x: int, lanes: int = 1) -> Val:
        """An int32 constant."""
        return self.const(x, I32).splat(lanes)

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

    def iota(self, lanes: int, name: str = "i32") -> Val:
        """0, 1, 2, ..."""
        t = ELEMS[name][0]
        return Val(self, ir.Constant(vector(t, lanes), [t(j) for j in range(lanes)]))

    def first(self, lanes: int, count: Val) -> Val:
        """True in the first `count` lanes."""
        return self.iota(lanes) < count.to("i32").splat(lanes)

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

    def intrinsic(self, name: str, ret: ir.Type, args: list[ir.Type]) -> ir.Function:
        """An LLVM intrinsic, declared once in this module."""
        found = self.module.globals.get(name)
        return found or ir.Function(self.module, ir.FunctionType(ret, args), name=name)

    def _call(self, name: str, *args: Val) -> Val:
        t = args[0].v.type
        kind = ("f" if args[0].is_float else "i") + str(_bits(args[0].elem))
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

    def maximum(self, a: Val, c: Any) -> Val:
        """Larger of two, lane by lane (no NaN rules)."""
        return (a > c).where(a, c)

    def minimum(self, a: Val, c: Any) -> Val:
        """Smaller of two, lane by lane."""
        return (a < c).where(a, c)

    def bf16(self, x: Val) -> Val:
        """float32 rounded to nearest even, as 16-bit integers. Infinities stay, a NaN stays one."""
        u = x.bits(I32)
        near = (u + ((u >> 16) & 1) + 0x7FFF) >> 16
        quiet = (u >> 16) | 0x40
        nan = Val(self, self.b.fcmp_unordered("uno", x.v, x.v))
        return nan.where(quiet, near).to("i16")

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


def _bits(t: ir.Type) -> int:
    if isinstance(t, ir.VectorType):
        return t.count * _bits(t.element)
    return 32 if isinstance(t, ir.FloatType) else t.width


def sums(k: Trace, xs: list[Val]) -> Val:
    """One vector whose lane j is the sum of all lanes of xs[j]; as many vectors as lanes. Same tree as `Val.sum`."""
    n = xs[0].lanes
    assert len(xs) == n
    half = n // 2
    while half:
        # why: pair vector j with vector j + len/2, so that the lanes come out in order
        step = len(xs) // 2
        xs = [_merge(k, xs[j], xs[j + step], half, n) for j in range(step)]
        half //= 2
    return xs[0]


def _merge(k: Trace, a: Val, c: Val, half: int, n: int) -> Val:
    """Groups of 2*half lanes: the low half of each becomes a's folded group, the high half c's."""
    low = [j if j % (2 * half) < half else n + j - half for j in range(n)]
    high = [j + half if j % (2 * half) < half else n + j for j in range(n)]
    return k.shuffle(a, c, low) + k.shuffle(a, c, high)
