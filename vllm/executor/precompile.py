"""The handle of a process that compiles a GPU's kernels while the engine starts (`worker/precompile.py`).

    Precompiler.begin(args)   at once: the process imports torch while this one does
    .tell(..)                 the network and the plan, as soon as they are known
    .is_busy                  it may still be writing into Triton's cache

A mark in that cache says for which arguments, packages and cards it has been done, so a later start starts no process.
What goes wrong here costs time later and nothing else. Called by: assembly.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.executor.frames import Kind, Rehearsal, frame, pack_kv, write
from vllm.planning.machine import num_cores
from vllm.util import env
from vllm.util.log import get_logger
from vllm.version import __version__

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs
    from vllm.protocol.kv import KVPlan
    from vllm.protocol.plan import WorkerPlan

_log = get_logger(__name__)
_LEAST_CORES, _MOST = 4, 16
"""With fewer the engine itself would wait; more find nothing to do."""
_MARKS = "vllm-"
_DRIVER = Path("/proc/driver/nvidia")
_KERNELS = Path(__file__).parents[1] / "ops" / "triton"


class Precompiler:
    """See the module."""

    def __init__(self, process: subprocess.Popen[bytes], mark: Path, processes: int) -> None:
        self._process, self._mark, self._processes = process, mark, processes
        self.is_first = not any(mark.parent.glob(f"{_MARKS}*"))
        """Nothing of the sort has been compiled here before: who waits for it has less to compile."""

    @classmethod
    def begin(cls, args: EngineArgs, driver: Path = _DRIVER) -> Precompiler | None:
        """Start the process; None where it has nothing to do: no such GPU, few cores, all compiled before."""
        ranks, cores = args.tensor_parallel_size * args.pipeline_parallel_size, num_cores()
        is_wanted = env.text("VLLM_PRECOMPILE") != "0" and env.text("VLLM_PLATFORM") in (None, "cuda")
        if not is_wanted or not driver.exists() or ranks > 1 or cores < _LEAST_CORES:
            return None
        try:
            mark = _mark(args, driver)
            if mark.exists():
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "vllm.executor.precompile_main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=None if _log.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
                # why: without a device it takes no memory of one; many threads would only be in the way
                env=env.for_child(
                    CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(filter(None, sys.path))
                ),
            )
        except (OSError, metadata.PackageNotFoundError):
            return None
        return cls(process, mark, min(cores - 1, _MOST))

    def tell(self, config: dict[str, Any], worker: WorkerPlan, kv: KVPlan) -> None:
        """What to compile for. `config` is the model's config.json, with overrides."""
        if not worker.device.startswith("cuda"):
            self.close()
            return
        from vllm.platforms.cuda import first_chip

        message = Rehearsal(config, worker, pack_kv(kv), first_chip(), str(self._mark), self._processes)
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):
            write(pipe.fileno(), frame(Kind.REHEARSAL, message))
            pipe.close()

    @property
    def is_busy(self) -> bool:
        """The process has not ended."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, or for so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _mark(args: EngineArgs, driver: Path) -> Path:
    """The file that stands for these arguments on this machine."""
    folder = Path(str(args.model))
    config = folder / "config.json"
    cards = sorted(driver.glob("gpus/*/information"))
    said = (
        __version__,
        *(metadata.version(name) for name in ("torch", "triton")),
        max(path.stat().st_mtime_ns for path in _KERNELS.glob("*.py")),
        sorted((name, repr(value)) for name, value in asdict(args).items()),
        config.read_text(errors="replace") if config.is_file() else "",
        [line for card in cards for line in card.read_text().splitlines() if line.startswith("Model")],
    )
    name = hashlib.sha256(repr(said).encode()).hexdigest()[:32]
    return cache_folder() / f"{_MARKS}{name}"


def cache_folder() -> Path:
    """Where Triton keeps what it compiles."""
    home = Path(env.text("HOME") or "~").expanduser()
    return Path(env.text("TRITON_CACHE_DIR") or home / ".triton" / "cache").expanduser()
