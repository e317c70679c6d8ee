"""Compile a kernel of `lang.py` in milliseconds and run it on a team of threads.

    @kernel("x:T* out:T* rows dim eps:f32")            untagged names are int64, T* is the dtype of the variant
    def rms_norm(k, x, out, rows, dim, eps): ...
    rms_norm.get(T="bf16")(x.data_ptr(), out.data_ptr(), rows, dim, 1e-6)

A call runs the body on every thread that comes; `k.share(n)` and `k.dynamic(n)` hand out work. There are as many
threads as torch has been given. Compiling takes 10 to 100 ms a kernel, in memory: no cache folder, nothing to go stale.
Does not know: ops, shapes. Invariant: without llvmlite `available()` is False and nothing else here is called.
Called by: the kernels beside this file.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from vllm.util import env

_LOCK = threading.RLock()
LISTENING = threading.Lock()
"""Held by whoever sets `listener`."""
listener: Callable[[int, list[Any], tuple[Any, ...], bool], bool] | None = None
"""Told of every call (body, types and values of arguments, alone?); whether that is all that is to happen."""
listening = 0
"""The thread that it was set for; steps of other threads are none of its business."""
SMALL = 1 << 14
"""Elements that one thread is done with before another has noticed."""


@functools.cache
def available() -> bool:
    """Is there a compiler (llvmlite)?"""
    return find_spec("llvmlite") is not None


@functools.cache
def features() -> frozenset[str]:
    """Instruction sets of this CPU by LLVM's names, cut where ONEDNN_MAX_CPU_ISA asks for less."""
    if not available():
        return frozenset()
    import llvmlite.binding as llvm

    found = {name for name, there in llvm.get_host_cpu_features().items() if there}
    limit = (env.text("ONEDNN_MAX_CPU_ISA") or "").upper()
    if limit.startswith(("AVX2", "SSE")) or limit == "AVX":
        found = {name for name in found if not name.startswith("avx512")}
    return frozenset(found)


def num_threads() -> int:
    """Threads that a call may have."""
    return torch.get_num_threads()


@functools.cache
def _machine() -> tuple[Any, Any]:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    all_features = llvm.get_host_cpu_features()
    flags = ",".join(f"{'+' if name in features() else '-'}{name}" for name in all_features)
    target = llvm.Target.from_default_triple()
    make = functools.partial(target.create_target_machine, features=flags, opt=3, jit=True)
    machine = make(cpu=llvm.get_host_cpu_name())
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), make(cpu=llvm.get_host_cpu_name()))
    return machine, engine


@functools.cache
def _team() -> Any:
    """The threads that help, or None where there can be none."""
    from vllm.ops.cpu import team

    if team.calls() is None:
        return None
    address = _load(*team.worker_code(features()))
    return team.Team(ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address))


@functools.cache
def walker() -> Callable[[int, int, int], None]:
    """walk(list, end, threads) of `emit.emit_walk`. Runs without Python's lock."""
    from vllm.ops.cpu import emit, team

    with _LOCK:
        helpers = _team()
        address = _load(*emit.emit_walk(team.calls(), 0 if helpers is None else helpers.board))
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int32)(address)


def crew() -> int:
    """Threads of a call made now; the helpers for it are there."""
    helpers, n = _team(), torch.get_num_threads()
    if helpers is not None and n > 1:
        helpers.grow(n)
    return n


def _load(text: str, entry: str) -> int:
    """The address of `entry` in compiled LLVM IR."""
    import llvmlite.binding as llvm

    machine, engine = _machine()
    module = llvm.parse_assembly(text)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_unrolling = tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    engine.add_module(module)
    engine.finalize_object()
    return int(engine.get_function_address(entry))


class Kernel:
    """A body that is traced and compiled once per variant (its dtypes and fixed sizes)."""

    def __init__(self, body: Callable[..., None], signature: str) -> None:
        self.body, self.name = body, body.__name__
        self.args = [(*part.split(":"), "i64")[:2] for part in signature.split()]
        self._ready: dict[tuple[tuple[str, Any], ...], tuple[Callable[..., None], Callable[..., None]]] = {}

    def get(self, alone: bool = False, **fixed: Any) -> Callable[..., None]:
        """The compiled function of a variant. Names of dtypes are for `name:T*`; all of them reach the body.

        `alone`: on the calling thread only, for work that is too small to share. Looking a variant up costs
        microseconds: callers keep what they get.
        """
        key = tuple(sorted(fixed.items()))
        found = self._ready.get(key)
        if found is None:
            with _LOCK:
                found = self._ready.get(key) or self._ready.setdefault(key, self._compile(fixed))
        return found[alone]

    def _kinds(self, fixed: dict[str, Any]) -> list[str]:
        return [f"{fixed.get(t[:-1], t[:-1])}*" if t.endswith("*") else t for _, t in self.args]

    def _compile(self, fixed: dict[str, Any]) -> tuple[Callable[..., None], Callable[..., None]]:
        """(on all threads, on this thread)."""
        from vllm.ops.cpu import emit, team

        helpers, kinds = _team(), self._kinds(fixed)
        board = 0 if helpers is None else helpers.board
        text, entry = emit.emit(self, kinds, fixed, features(), team.calls(), board)
        ctypes_of = {"i64": ctypes.c_int64, "f32": ctypes.c_float, "i32": ctypes.c_int32}
        types = [ctypes_of.get(kind, ctypes.c_int64) for kind in kinds]
        call = ctypes.CFUNCTYPE(None, *types, ctypes.c_int32)(_load(text, entry))
        body = int(_machine()[1].get_function_address(emit.body_name(entry)))
        known, threads = 1, torch.get_num_threads

        def together(*args: Any) -> None:
            nonlocal known
            n = threads()
            if n > known and helpers is not None:
                helpers.grow(n)
                known = n
            heard = listener
            if heard is None or not heard(body, types, args, False):
                call(*args, n)

        def alone(*args: Any) -> None:
            heard = listener
            if heard is None or not heard(body, types, args, True):
                call(*args, 1)

        return together, alone


@contextmanager
def rehearsal() -> Iterator[None]:
    """Kernels that this thread calls are compiled, and not run; no step is recorded meanwhile."""
    global listener, listening
    me = threading.get_ident()
    with LISTENING:
        listening = me
        listener = lambda *_: threading.get_ident() == me  # noqa: E731
        try:
            yield
            walker()
        finally:
            listener = None


def kernel(signature: str) -> Callable[[Callable[..., None]], Kernel]:
    """Make a Kernel of a traced function. `signature`: names with optional `:f32`, `:i32`, `:T*`."""
    return lambda body: Kernel(body, signature)
