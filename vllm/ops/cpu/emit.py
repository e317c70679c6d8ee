"""Wrap a traced kernel body: an entry that C can call, a body that threads join, and ways to share.

Work is claimed piece by piece; a phase is over when its pieces are done, not when all threads have arrived: a thread
that the system has put to sleep is not waited for unless it holds a piece. So a busy neighbour costs its share of the
machine, not a scheduler's slice at every barrier.

    board   [ seq | sleepers | stop | lock | body, width | frame ]       one per process, see `team.py`
    frame   [ phase 0: next, done | phase 1: .. | phase 2: .. | threads, args.. ]

Every counter carries the number of its call (epoch) in the upper half, so a thread that comes late, with a pointer to a
call that is over, claims nothing. Does not know: compiling, torch. Called by: `jit.py`, `team.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from llvmlite import ir

from vllm.ops.cpu.lang import Trace
from vllm.ops.cpu.values import BYTE_PTR, F32, I32, I64, Ptr, Val, Var

_SERIAL = itertools.count()
_PHASES, _LINE = 3, 8
SEQ, SLEEPERS, STOP, LOCK, BODY, WIDTH, FRAME = 0, 8, 16, 24, 32, 33, 40
"""Words of the board."""
_ARGS = 2 * _PHASES * _LINE
BOARD_WORDS = FRAME + _ARGS + 64
_PATIENCE = 1 << 10
"""Glances at a counter before the rest of the machine gets a turn."""
FUTEX_WAIT, FUTEX_WAKE = 128, 129
_VOID = ir.VoidType()
BODY_TYPE = ir.FunctionType(_VOID, [I64.as_pointer(), I64, I64])


class Calls:
    """Addresses of what the machine code calls: the C library's syscall and sched_yield, and the futex number."""

    def __init__(self, syscall: int, sched_yield: int, futex: int) -> None:
        self.syscall, self.sched_yield, self.futex = syscall, sched_yield, futex


class KernelTrace(Trace):
    """A trace that also shares work with the other threads of its call."""

    tid: Val
    threads: Val
    frame: ir.Value
    epoch: ir.Value
    calls: Calls | None
    phase: int = 0
    last: Val | None = None

    def share(self, n: Any) -> Iterator[Val]:
        """0..n-1 in as many runs of neighbours as keep every thread busy."""
        n = n if isinstance(n, Val) else self.const(n)
        runs = self.minimum(n, self.threads * 2)
        for run in self.dynamic(runs):
            yield from self.range(run * n // runs, (run + 1) * n // runs)

    def dynamic(self, n: Any) -> Iterator[Val]:
        """Indices of 0..n-1, each to the thread that asks first. One phase of the kernel."""
        assert self.phase < _PHASES, "a kernel has at most three phases"
        n = n if isinstance(n, Val) else self.const(n)
        b, next_, done = self.b, self._counter(0), self._counter(1)
        mine: Var = self.var(0)
        look, claim, body, over, out, end = (
            b.append_basic_block(s) for s in ("look", "claim", "b", "over", "out", "end")
        )
        b.branch(look)
        b.position_at_end(look)
        seen = b.load_atomic(next_, "acquire", 8)
        index = b.sub(seen, b.shl(self.epoch, I64(32)))
        b.cbranch(self._is_below(index, n), claim, over)
        b.position_at_end(claim)
        swapped = b.cmpxchg(next_, seen, b.add(seen, I64(1)), "acq_rel", "acquire")
        b.cbranch(b.extract_value(swapped, 1), body, look)
        b.position_at_end(body)
        yield Val(self, index)
        mine.v = mine.v + 1
        b.branch(look)
        b.position_at_end(over)
        b.cbranch((mine.v > 0).v, out, end)
        b.position_at_end(out)
        b.atomic_rmw("add", done, mine.v.v, "release")
        b.branch(end)
        b.position_at_end(end)
        self.last = n
        self.phase += 1

    def barrier(self) -> None:
        """Nobody goes on before every piece of the phase above is done."""
        assert self.last is not None
        b, done = self.b, None
        self.phase -= 1
        done = self._counter(1)
        self.phase += 1
        glances = self.var(0)
        look, wait, rest, end = (b.append_basic_block(s) for s in ("look", "wait", "rest", "end"))
        b.branch(look)
        b.position_at_end(look)
        count = b.sub(b.load_atomic(done, "acquire", 8), b.shl(self.epoch, I64(32)))
        b.cbranch(self._is_below(count, self.last), wait, end)
        b.position_at_end(wait)
        pause(self)
        glances.v = glances.v + 1
        b.cbranch((glances.v > _PATIENCE).v, rest, look)
        b.position_at_end(rest)
        if self.calls is not None:
            call_at(b, self.calls.sched_yield, I32, [], [])
        b.branch(look)
        b.position_at_end(end)

    def _is_below(self, count: ir.Value, n: Val) -> ir.Value:
        """A counter of this call that is below n. One of another call differs by 2^32 at least, or is negative.

        Both are looked at: a thread that comes late may have read the arguments of another kernel as its own n.
        """
        mine = self.b.icmp_unsigned("<", count, I64(1 << 31))
        return self.b.and_(mine, self.b.icmp_signed("<", count, n.v))

    def _counter(self, which: int) -> ir.Value:
        return word(self.b, self.frame, (2 * self.phase + which) * _LINE)


def word(b: ir.IRBuilder, base: ir.Value, i: int) -> ir.Value:
    """Address of word `i` of an int64 array."""
    return b.gep(base, [I32(i)])


def call_at(b: ir.IRBuilder, address: int, ret: ir.Type, kinds: list[ir.Type], args: list[ir.Value]) -> ir.Value:
    """Call a C function by its address."""
    return b.call(b.inttoptr(I64(address), ir.FunctionType(ret, kinds).as_pointer()), args)


def pause(k: Trace) -> None:
    """Tell the processor that this is a loop that waits."""
    if "sse2" in k.features:
        k.b.call(k.intrinsic("llvm.x86.sse2.pause", _VOID, []), [])


def emit(
    kernel: Any, kinds: list[str], fixed: dict[str, Any], features: frozenset[str], calls: Calls | None, board: int
) -> tuple[str, str]:
    """(LLVM IR, entry name) of one variant of a kernel. `board` 0: there is no team, every call runs alone."""
    name = f"{kernel.name}_{next(_SERIAL)}"
    module = ir.Module(name)
    body = _body(module, name, kernel, kinds, fixed, features, calls)
    types = [F32 if kind == "f32" else I32 if kind == "i32" else I64 for kind in kinds]
    fn = ir.Function(module, ir.FunctionType(_VOID, [*types, I32]), name=name)
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    own = b.alloca(I64, _ARGS + 1 + len(kinds))
    alone, ask = b.append_basic_block("alone"), b.append_basic_block("ask")
    threads = b.sext(fn.args[-1], I64)
    b.cbranch(b.icmp_signed(">", threads, I64(1)) if board else ir.Constant(ir.IntType(1), 0), ask, alone)
    b.position_at_end(alone)
    _fill(b, own, fn.args[:-1], I64(1), I64(1))
    b.call(body, [own, I64(1), I64(0)])
    b.ret_void()
    b.position_at_end(ask)
    if not board:
        b.unreachable()
        return str(module), name
    assert calls is not None
    table = b.inttoptr(I64(board), I64.as_pointer())
    lock = word(b, table, LOCK)
    team = b.append_basic_block("team")
    # why: two engines in one process: who comes second works alone
    b.cbranch(b.extract_value(b.cmpxchg(lock, I64(0), I64(1), "acq_rel", "acquire"), 1), team, alone)
    b.position_at_end(team)
    frame, epoch = word(b, table, FRAME), _next_epoch(b, table)
    _fill(b, frame, fn.args[:-1], threads, epoch)
    _together(b, table, calls, b.ptrtoint(body, I64), threads, epoch)
    b.store_atomic(I64(0), lock, "release", 8)
    b.ret_void()
    return str(module), name


def body_name(name: str) -> str:
    """What the part of a kernel that threads join is called."""
    return f"{name}_body"


def _next_epoch(b: ir.IRBuilder, table: ir.Value) -> ir.Value:
    return b.and_(b.add(b.load(word(b, table, SEQ)), I64(1)), I64(0x3FFFFFFF))


def _together(
    b: ir.IRBuilder, table: ir.Value, calls: Calls, body: ir.Value, threads: ir.Value, epoch: ir.Value
) -> None:
    """Run the call in the board's frame with everybody who comes; the lock is ours."""
    seq, frame = word(b, table, SEQ), word(b, table, FRAME)
    b.store(body, word(b, table, BODY))
    b.store(threads, word(b, table, WIDTH))
    b.atomic_rmw("xchg", seq, epoch, "seq_cst")
    with b.if_then(b.icmp_signed(">", b.load_atomic(word(b, table, SLEEPERS), "seq_cst", 8), I64(0))):
        kinds = [I64, I64.as_pointer(), I64, I64]
        call_at(b, calls.syscall, I64, kinds, [I64(calls.futex), seq, I64(FUTEX_WAKE), I64(1 << 30)])
    b.call(b.inttoptr(body, BODY_TYPE.as_pointer()), [frame, epoch, I64(0)])
    # why: while the next call is being written, a late thread could pair its arguments with these counters
    _count(b, frame, I64(-1))


def _fill(b: ir.IRBuilder, frame: ir.Value, args: Any, threads: ir.Value, epoch: ir.Value) -> None:
    """Put a call into a frame. Arguments before counters: whoever can claim a piece must see its own arguments."""
    b.store(threads, word(b, frame, _ARGS))
    for i, arg in enumerate(args):
        b.store(arg, b.bitcast(word(b, frame, _ARGS + 1 + i), arg.type.as_pointer()))
    _count(b, frame, b.shl(epoch, I64(32)))


def _count(b: ir.IRBuilder, frame: ir.Value, value: ir.Value) -> None:
    """Set every counter; -1 belongs to no call."""
    for c in range(2 * _PHASES):
        b.store_atomic(value, word(b, frame, c * _LINE), "release", 8)


def _body(
    module: ir.Module,
    name: str,
    kernel: Any,
    kinds: list[str],
    fixed: dict[str, Any],
    features: frozenset[str],
    calls: Calls | None,
) -> ir.Function:
    fn = ir.Function(module, BODY_TYPE, name=body_name(name))
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    k = KernelTrace(module, b, features)
    k.frame, k.epoch, k.calls = fn.args[0], fn.args[1], calls
    args: list[Any] = []
    for i, kind in enumerate(kinds):
        slot = word(b, k.frame, _ARGS + 1 + i)
        if kind.endswith("*"):
            args.append(Ptr(k, b.inttoptr(b.load(slot), BYTE_PTR), kind[:-1]))
        else:
            t = {"f32": F32, "i32": I32, "i64": I64}[kind]
            args.append(Val(k, b.load(b.bitcast(slot, t.as_pointer()))))
    k.threads = Val(k, b.load(word(b, k.frame, _ARGS)))
    k.tid = Val(k, fn.args[2])
    kernel.body(k, *args, **fixed)
    if k.last is not None:
        with k.when(k.tid.eq(0)):
            k.barrier()
    k.b.ret_void()
    return fn


def emit_worker(features: frozenset[str], calls: Calls, patience: int) -> tuple[str, str]:
    """(LLVM IR, name) of worker(board, number): take part in every call until told to stop; sleep between them."""
    module = ir.Module("team_worker")
    fn = ir.Function(module, ir.FunctionType(_VOID, [I64, I64]), name="team_worker")
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    k = Trace(module, b, features)
    board = b.inttoptr(fn.args[0], I64.as_pointer())
    seq, sleepers, stop = (word(b, board, i) for i in (SEQ, SLEEPERS, STOP))
    seen, glances = k.var(Val(k, b.load_atomic(seq, "acquire", 8))), k.var(0)
    names = ("look", "wait", "sleep", "check", "leave", "join", "work")
    look, wait, sleep, check, leave, join, work = (b.append_basic_block(s) for s in names)
    b.branch(look)
    b.position_at_end(look)
    now = b.load_atomic(seq, "acquire", 8)
    b.cbranch(b.icmp_signed("==", now, seen.v.v), wait, check)
    b.position_at_end(wait)
    pause(k)
    glances.v = glances.v + 1
    b.cbranch((glances.v > patience).v, sleep, look)
    b.position_at_end(sleep)
    b.atomic_rmw("add", sleepers, I64(1), "seq_cst")
    kinds = [I64, I64.as_pointer(), I64, I64, I64]
    call_at(b, calls.syscall, I64, kinds, [I64(calls.futex), seq, I64(FUTEX_WAIT), seen.v.v, I64(0)])
    b.atomic_rmw("sub", sleepers, I64(1), "seq_cst")
    glances.v = k.const(0)
    b.branch(look)
    b.position_at_end(check)
    seen.v = Val(k, now)
    glances.v = k.const(0)
    b.cbranch(b.icmp_signed("!=", b.load_atomic(stop, "acquire", 8), I64(0)), leave, join)
    b.position_at_end(leave)
    b.ret_void()
    b.position_at_end(join)
    body, width = b.load(word(b, board, BODY)), b.load(word(b, board, WIDTH))
    same = b.icmp_signed("==", b.load_atomic(seq, "acquire", 8), now)
    b.cbranch(b.and_(same, b.icmp_signed("<", fn.args[1], width)), work, look)
    b.position_at_end(work)
    b.call(b.inttoptr(body, BODY_TYPE.as_pointer()), [word(b, board, FRAME), now, fn.args[1]])
    b.branch(look)
    return str(module), "team_worker"


def emit_walk(calls: Calls | None, board: int) -> tuple[str, str]:
    """(LLVM IR, name) of walk(list, end, threads): run recorded calls one after the other.

    A call is | body | number of arguments | alone? | arguments, a word each |.
    """
    module = ir.Module("walk")
    fn = ir.Function(module, ir.FunctionType(_VOID, [I64, I64, I32]), name="walk")
    b = ir.IRBuilder(fn.append_basic_block("entry"))
    own, held, at, i = b.alloca(I64, BOARD_WORDS - FRAME), b.alloca(I64), b.alloca(I64), b.alloca(I64)
    table, threads = b.inttoptr(I64(board), I64.as_pointer()), b.sext(fn.args[2], I64)
    b.store(I64(0), held)
    b.store(fn.args[0], at)
    if board:
        with b.if_then(b.icmp_signed(">", threads, I64(1))):
            got = b.extract_value(b.cmpxchg(word(b, table, LOCK), I64(0), I64(1), "acq_rel", "acquire"), 1)
            b.store(b.zext(got, I64), held)
    look, run, over = (b.append_basic_block(name) for name in ("look", "run", "over"))
    b.branch(look)
    b.position_at_end(look)
    b.cbranch(b.icmp_unsigned("<", b.load(at), fn.args[1]), run, over)
    b.position_at_end(run)
    entry = b.inttoptr(b.load(at), I64.as_pointer())
    body, num, alone = (b.load(word(b, entry, j)) for j in range(3))
    shared = b.and_(b.icmp_signed("==", alone, I64(0)), b.icmp_signed("!=", b.load(held), I64(0)))
    frame = b.select(shared, word(b, table, FRAME), own)
    width, epoch = (
        b.select(shared, threads, I64(1)),
        b.select(shared, _next_epoch(b, table) if board else I64(1), I64(1)),
    )
    b.store(width, word(b, frame, _ARGS))
    b.store(I64(0), i)
    copy, copied = b.append_basic_block("copy"), b.append_basic_block("copied")
    b.cbranch(b.icmp_signed(">", num, I64(0)), copy, copied)
    b.position_at_end(copy)
    here = b.load(i)
    b.store(b.load(b.gep(entry, [b.add(here, I64(3))])), b.gep(frame, [b.add(here, I64(_ARGS + 1))]))
    b.store(b.add(here, I64(1)), i)
    b.cbranch(b.icmp_signed("<", b.load(i), num), copy, copied)
    b.position_at_end(copied)
    _count(b, frame, b.shl(epoch, I64(32)))
    if board:
        assert calls is not None
        with b.if_else(shared) as (yes, no):
            with yes:
                _together(b, table, calls, body, threads, epoch)
            with no:
                b.call(b.inttoptr(body, BODY_TYPE.as_pointer()), [own, I64(1), I64(0)])
    else:
        b.call(b.inttoptr(body, BODY_TYPE.as_pointer()), [own, I64(1), I64(0)])
    b.store(b.add(b.load(at), b.mul(b.add(num, I64(3)), I64(8))), at)
    b.branch(look)
    b.position_at_end(over)
    if board:
        with b.if_then(b.icmp_signed("!=", b.load(held), I64(0))):
            b.store_atomic(I64(0), word(b, table, LOCK), "release", 8)
    b.ret_void()
    return str(module), "walk"
