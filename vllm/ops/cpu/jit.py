"""Compile a kernel of `lang.py` in milliseconds and run it on torch's own threads.

    @kernel("x:T* out:T* rows dim eps:f32")            untagged names are int64, T* is the dtype of the variant
    def rms_norm(k, x, out, rows, dim, eps): ...
    rms_norm.get(T="bf16")(x.data_ptr(), out.data_ptr(), rows, dim, 1e-6)

A call runs the body once per thread; `k.share(n)` and `k.dynamic(n)` hand out work. The threads are the OpenMP team
that torch already has (GOMP_parallel out of torch's own library), so that our kernels and torch's operators never
fight for cores. Compiling takes 10 to 60 ms a kernel, in memory: no cache folder, nothing to go stale.
Does not know: ops, shapes. Invariant: without llvmlite `available()` is False and nothing else here is called.
Called by: the kernels beside this file.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vllm.util import env

_LOCK = threading.RLock()


@functools.cache
def available() -> bool:
    """Is there a compiler (llvmlite, which comes with numba)?"""
    return find_spec("llvmlite") is not None


@functools.cache
def features() -> frozenset[str]:
    """Instruction sets of this CPU by LLVM's names, cut where ONEDNN_MAX_CPU_ISA asks for less."""
    if not available():
        return frozenset()
    import llvmlite.binding as llvm

    found = {name for name, there in llvm.get_host_cpu_features().items() if there}
    limit = (env.text("ONEDNN_MAX_CPU_ISA") or "").upper()
    if limit.startswith(("AVX2", "AVX_", "SSE")) or limit == "AVX":
        found = {name for name in found if not name.startswith("avx512")}
    return frozenset(found)


@functools.cache
def _openmp() -> tuple[int, int, int]:
    """Addresses of GOMP_parallel, omp_get_thread_num and GOMP_barrier in the library torch uses; zeros without one."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        if not (folder / name).exists():
            continue
        lib = ctypes.CDLL(str(folder / name))
        try:
            found = [ctypes.cast(lib[n], ctypes.c_void_p).value for n in _SYMBOLS]
        except AttributeError:
            break
        return found[0] or 0, found[1] or 0, found[2] or 0
    return 0, 0, 0


_SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "GOMP_barrier")


def num_threads() -> int:
    """Threads a kernel runs on: torch's, or one where torch's OpenMP cannot be reached."""
    return torch.get_num_threads() if _openmp()[0] else 1


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


class Kernel:
    """A body that is traced and compiled once per variant (its dtypes and fixed sizes)."""

    def __init__(self, body: Callable[..., None], signature: str) -> None:
        self.body, self.name = body, body.__name__
        self.args = [(*part.split(":"), "i64")[:2] for part in signature.split()]
        self._ready: dict[tuple[tuple[str, Any], ...], Callable[..., None]] = {}

    def get(self, **fixed: Any) -> Callable[..., None]:
        """The compiled function of a variant. Names of dtypes are for `name:T*`; all of them reach the body.

        Looking a variant up costs microseconds: callers keep what they get.
        """
        key = tuple(sorted(fixed.items()))
        found = self._ready.get(key)
        if found is None:
            with _LOCK:
                found = self._ready.get(key) or self._ready.setdefault(key, self._compile(fixed))
        return found

    def __call__(self, *args: Any, **fixed: Any) -> None:
        self.get(**fixed)(*args)

    def _kinds(self, fixed: dict[str, Any]) -> list[str]:
        return [f"{fixed.get(t[:-1], t[:-1])}*" if t.endswith("*") else t for _, t in self.args]

    def _compile(self, fixed: dict[str, Any]) -> Callable[..., None]:
        text, entry = self.trace(fixed)
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
        ctypes_of = {"i64": ctypes.c_int64, "f32": ctypes.c_float, "i32": ctypes.c_int32}
        kinds = [ctypes_of.get(kind, ctypes.c_int64) for kind in self._kinds(fixed)]
        call = ctypes.CFUNCTYPE(None, *kinds, ctypes.c_int32)(engine.get_function_address(entry))

        if not _openmp()[0]:
            return lambda *args: call(*args, 1)
        threads = torch.get_num_threads

        def run(*args: Any) -> None:
            call(*args, threads())

        return run

    def trace(self, fixed: dict[str, Any]) -> tuple[str, str]:
        """(LLVM IR, name of the entry) of a variant."""
        from vllm.ops.cpu import emit

        return emit.emit(self, self._kinds(fixed), fixed, features(), _openmp())


def kernel(signature: str) -> Callable[[Callable[..., None]], Kernel]:
    """Make a Kernel of a traced function. `signature`: names with optional `:f32`, `:i32`, `:T*`."""
    return lambda body: Kernel(body, signature)
