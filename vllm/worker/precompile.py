"""Compile a network's kernels for a GPU ahead of the first request, in a process that has no GPU.

    network ─▶ one layer of each sort on torch's `meta` device, with a runner that makes all its sizes ready
            ─▶ kernels are called as ever; none runs, each new one is noted
            ─▶ forks compile them side by side into Triton's cache on disk, where the engine finds them

Does not know: weights, requests, the engine. Invariant: nothing here asks a device, so none loses memory to it.
Called by: executor/precompile_main.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from vllm.layers.build import build, dtype_of, make_slabs
from vllm.ops.triton.chip import Chip, pretend
from vllm.parts.decoder import Decoder
from vllm.parts.tensors import tensors
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.util.log import get_logger
from vllm.worker.ahead import AheadRunner
from vllm.worker.kernels import kernels_for
from vllm.worker.rehearsal import one_of_each

log = get_logger(__name__)
_INDEX = struct.Struct("<H")
_MOST = 8192
"""Kernels whose numbers a pipe holds at once."""


class _Told:
    """Triton's driver for a device that is not here."""

    def __init__(self, chip: Chip) -> None:
        major, minor = chip.capability
        self._target = GPUTarget("cuda", 10 * major + minor, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class _Kept:
    """An executor, as Triton wants one, that does nothing of what it is given."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, job: Callable[[], object]) -> Future[object]:
        self.jobs.append(job)
        nothing: Future[object] = Future()
        nothing.set_exception(NotImplementedError())
        return nothing


def precompile(decoder: Decoder, worker_plan: WorkerPlan, kv_plan: KVPlan, chip: Chip, processes: int) -> int:
    """Compile what steps of this network will ask for, and say how many kernels that are.

    For a process of its own, which is good for nothing else afterwards.
    """
    jobs = _jobs(decoder, worker_plan, kv_plan, chip)[:_MOST]
    _all(jobs, processes)
    return len(jobs)


def _jobs(decoder: Decoder, worker_plan: WorkerPlan, kv_plan: KVPlan, chip: Chip) -> list[Callable[[], object]]:
    """What compiles each kernel, those first that are needed first."""
    pretend(chip)
    driver.set_active(_Told(chip))
    called = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        return called(self, *args, grid=grid, warmup=True, **kwargs)

    JITFunction.run = run
    ops = kernels_for(decoder, worker_plan, kv_plan, chip.capability)
    decoder, kv_plan = one_of_each(decoder, kv_plan, last=True)
    nowhere = replace(worker_plan, device="meta")
    kept = _Kept()
    with torch.inference_mode(), triton.AsyncCompileMode(kept, ignore_errors=True):
        dtype = dtype_of(worker_plan.dtype)
        weights = {s.name: torch.empty(s.shape, dtype=dtype, device="meta") for s in tensors(decoder)}
        slabs = make_slabs(kv_plan, torch.device("meta"))
        model = build(decoder, weights, nowhere, kv_plan, slabs, ops)
        runner = AheadRunner(model, slabs, ops, nowhere, kv_plan)
        try:
            while runner.prepare() is not None:
                pass
        except Exception as error:  # why: what was noted so far is worth its time, and the engine compiles the rest
            log.debug("not all kernels are compiled ahead: %s: %s", type(error).__name__, error, exc_info=True)
    return kept.jobs


def _launcher_of(kernel: Any) -> None:
    """Triton calls a kernel through a small C module of its own, which is compiled for each signature."""
    from triton.backends.nvidia.driver import CudaLauncher

    CudaLauncher(kernel.src, kernel.metadata)


def _all(jobs: list[Callable[[], object]], processes: int) -> None:
    """Do the jobs in forks of this process: whoever is free takes the next one. What fails is left to the engine."""
    numbers, fill = os.pipe()
    os.write(fill, b"".join(_INDEX.pack(n) for n in range(len(jobs))))
    os.close(fill)
    forks = []
    for _ in range(min(processes, len(jobs))):
        pid = os.fork()
        if pid == 0:
            try:
                while taken := os.read(numbers, _INDEX.size):
                    with contextlib.suppress(Exception):
                        _launcher_of(jobs[_INDEX.unpack(taken)[0]]())
            finally:
                os._exit(0)
        forks.append(pid)
    os.close(numbers)
    for pid in forks:
        os.waitpid(pid, 0)
