"""Wrap a traced kernel body: an entry that C can call, a body per thread, and ways to hand out the work.

    entry(args..., n)   puts args and counters on its stack ─▶ GOMP_parallel(body, stack, n) ─▶ body(stack) on n threads

Does not know: compiling, torch. Called by: `jit.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from llvmlite import ir

from vllm.ops.cpu.lang import BYTE_PTR, F32, I32, I64, Ptr, Trace, Val

_SERIAL = itertools.count()
_LINE = 8
NUM_COUNTERS = 2


class KernelTrace(Trace):
    """A trace that also knows the threads it runs on."""

    tid: Val
    threads: Val
    _counters: list[Val]
    _barrier: int

    def share(self, n: Any) -> Iterator[Val]:
        """This thread's equal share of 0..n-1: neighbouring indices, known before the start."""
        n = n if isinstance(n, Val) else self.const(n)
        yield from self.range(self.tid * n // self.threads, (self.tid + 1) * n // self.threads)

    def dynamic(self, n: Any) -> Iterator[Val]:
        """Indices of 0..n-1, each to the thread that asks first: for uneven work and for busy neighbours."""
        n = n if isinstance(n, Val) else self.const(n)
        counter, b = self._counters.pop(), self.b
        take, body, done = (b.append_basic_block(name) for name in ("take", "body", "done"))
        b.branch(take)
        b.position_at_end(take)
        i = Val(self, b.atomic_rmw("add", counter, I64(1), "monotonic"))
        b.cbranch((i < n).v, body, done)
        b.position_at_end(body)
        yield i
        b.branch(take)
        b.position_at_end(done)

    def barrier(self) -> None:
        """Every thread waits here for the others."""
        if not self._barrier:
            return
        fn = ir.FunctionType(ir.VoidType(), [])
        with self.when(self.threads > 1):
            self.b.call(self.b.inttoptr(I64(self._barrier), fn.as_pointer()), [])


def emit(
    kernel: Any, kinds: list[str], fixed: dict[str, Any], features: frozenset[str], openmp: tuple[int, int, int]
) -> tuple[str, str]:
    """(LLVM IR, entry name) of one variant of a kernel."""
    name = f"{kernel.name}_{next(_SERIAL)}"
    module = ir.Module(name)
    frame_len = len(kinds) + 1 + NUM_COUNTERS * _LINE
    body = _body(module, name, kernel, kinds, fixed, features, openmp)
    types = [F32 if kind == "f32" else I32 if kind == "i32" else I64 for kind in kinds]
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [*types, I32]), name=name)
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    frame = b.alloca(I64, frame_len)
    for i, arg in enumerate(fn.args[:-1]):
        slot = b.gep(frame, [I32(i)])
        b.store(arg, b.bitcast(slot, arg.type.as_pointer()))
    threads = fn.args[-1]
    b.store(b.sext(threads, I64), b.gep(frame, [I32(len(kinds))]))
    for c in range(NUM_COUNTERS):
        b.store(I64(0), b.gep(frame, [I32(len(kinds) + 1 + c * _LINE)]))
    data = b.bitcast(frame, BYTE_PTR)
    if not openmp[0]:
        b.call(body, [data])
        b.ret_void()
        return str(module), name
    with b.if_else(b.icmp_signed("<=", threads, I32(1))) as (alone, team):
        with alone:
            b.call(body, [data])
        with team:
            kind = ir.FunctionType(ir.VoidType(), [body.type, BYTE_PTR, I32, I32])
            b.call(b.inttoptr(I64(openmp[0]), kind.as_pointer()), [body, data, threads, I32(0)])
    b.ret_void()
    return str(module), name


def _body(
    module: ir.Module,
    name: str,
    kernel: Any,
    kinds: list[str],
    fixed: dict[str, Any],
    features: frozenset[str],
    openmp: tuple[int, int, int],
) -> ir.Function:
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTE_PTR]), name=f"{name}_body")
    fn.linkage = "internal"
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    k = KernelTrace(module, b, features)
    frame = b.bitcast(fn.args[0], I64.as_pointer())
    args: list[Any] = []
    for i, kind in enumerate(kinds):
        slot = b.gep(frame, [I32(i)])
        if kind.endswith("*"):
            args.append(Ptr(k, b.inttoptr(b.load(slot), BYTE_PTR), kind[:-1]))
        else:
            t = {"f32": F32, "i32": I32, "i64": I64}[kind]
            args.append(Val(k, b.load(b.bitcast(slot, t.as_pointer()))))
    k.threads = Val(k, b.load(b.gep(frame, [I32(len(kinds))])))
    k._counters = [Val(k, b.gep(frame, [I32(len(kinds) + 1 + c * _LINE)])).v for c in range(NUM_COUNTERS)]
    k._barrier = openmp[2]
    k.tid = k.const(0)
    if openmp[1]:
        kind = ir.FunctionType(I32, [])
        tid = b.call(b.inttoptr(I64(openmp[1]), kind.as_pointer()), [])
        k.tid = Val(k, b.select((k.threads > 1).v, b.sext(tid, I64), I64(0)))
    kernel.body(k, *args, **fixed)
    k.b.ret_void()
    return fn
