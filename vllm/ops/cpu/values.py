"""Values of the vector language (`lang.py`): scalars, vectors and addresses, and what is done to them.

Python numbers beside a value take its type. Loads of bf16 widen to float32, stores round to nearest even.
Does not know: loops, threads. Called by: lang, and emit, which makes addresses of arguments.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def __init__(self, k: Writer, v: ir.Value) -> None:
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
        return self._op(self._divisor(o), "fdiv", "sdiv")

    def __mod__(self, o: Any) -> Val:
        return self._op(self._divisor(o), "frem", "srem")

    def _divisor(self, o: Any) -> Any:
        """An integer divisor that is no constant, taken as 1 where it is not positive.

        A helper that comes late may read another call's arguments. It claims nothing, but what stands before the
        claims it computes, and a division by nothing ends the process.
        """
        if self.is_float or not isinstance(o, Val) or isinstance(o.v, ir.Constant):
            return o
        one = o.k.const(1, o.elem).splat(o.lanes)
        return Val(o.k, o.k.b.select((o > 0).v, o.v, one.v))

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
        size = self.lanes * bits_of(self.elem)
        return Val(self.k, self.k.b.bitcast(self.v, vector(elem, size // bits_of(elem))))

    def to(self, name: str) -> Val:
        """Convert to f32, i32, i64 (signed), i16 or i8 (cut)."""
        b, t = self.k.b, vector(ELEMS[name][0], self.lanes)
        if self.v.type == t:
            return self
        if self.is_float:
            return Val(self.k, b.fptosi(self.v, t))
        if name == "f32":
            return Val(self.k, b.sitofp(self.v, t))
        return Val(self.k, (b.sext if bits_of(t) > bits_of(self.v.type) else b.trunc)(self.v, t))

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

    def __init__(self, k: Writer, v: ir.Value, elem: str) -> None:
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
        bits = bits_of(t.element)
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
        kind = f"v{x.lanes}{'f' if x.is_float else 'i'}{bits_of(x.elem)}"
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

    def __init__(self, k: Writer, first: Val) -> None:
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


class Writer:
    """What values are written with: constants, and the few operations that they need themselves."""

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

    def iota(self, lanes: int, name: str = "i32") -> Val:
        """0, 1, 2, ..."""
        t = ELEMS[name][0]
        return Val(self, ir.Constant(vector(t, lanes), [t(j) for j in range(lanes)]))

    def first(self, lanes: int, count: Val) -> Val:
        """True in the first `count` lanes."""
        return self.iota(lanes) < count.to("i32").splat(lanes)

    def intrinsic(self, name: str, ret: ir.Type, args: list[ir.Type]) -> ir.Function:
        """An LLVM intrinsic, declared once in this module."""
        found = self.module.globals.get(name)
        return found or ir.Function(self.module, ir.FunctionType(ret, args), name=name)

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


def bits_of(t: ir.Type) -> int:
    """Bits of a scalar or a whole vector."""
    if isinstance(t, ir.VectorType):
        return t.count * bits_of(t.element)
    return 32 if isinstance(t, ir.FloatType) else t.width
