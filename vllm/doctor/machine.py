"""Facts that several checks ask for, each read once and only when asked.

Does not know: what is right or wrong. Invariant: a child process has a time limit, and its whole
group ends with it. Called by: the checks.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vllm.doctor import nvidia, torch_facts
from vllm.doctor.nvidia import Nvidia
from vllm.doctor.torch_facts import Torch
from vllm.util import env

ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. `status` is None when it ran past its limit, 127 when it could not start."""

    status: int | None
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line of what it complained, else of what it printed; at most 160 characters."""
        lines = [line.strip() for text in (self.out, self.err) for line in text.splitlines() if line.strip()]
        return lines[-1][:160] if lines else ""


@dataclass(frozen=True)
class Machine:
    """This machine as seen by this process. `limit` is the most seconds a child may take; `port` the server's."""

    limit: float = 120.0
    port: int = 8000

    def run(self, command: list[str], limit: float = 10.0, **changes: str) -> Ran:
        """Run a command to its end, or to its limit (never past the machine's own)."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=env.for_child(**changes),
                    start_new_session=True,
                )
            except OSError as error:
                return Ran(127, "", str(error))
            status: int | None
            try:
                status = child.wait(min(limit, self.limit))
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(child)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        return Ran(status, *texts)

    def python(self, code: str, limit: float, **changes: str) -> Ran:
        """Run Python text in a child that sees our package last and the current folder not at all."""
        return self.run(
            [sys.executable, "-P", "-c", f"import sys\nsys.path.append({ROOT!r})\n{code}"], limit, **changes
        )

    def which(self, *names: str) -> str | None:
        """The first of these commands on PATH."""
        return next((found for name in names if (found := shutil.which(name))), None)

    @property
    def cpu_chosen(self) -> bool:
        """The user wants the CPU whatever else is here."""
        return env.text("VLLM_PLATFORM") == "cpu"

    @cached_property
    def nvidia(self) -> Nvidia:
        """NVIDIA GPUs as their own tool tells them."""
        return nvidia.read(self.run)

    @cached_property
    def torch(self) -> Torch:
        """torch as a child process finds it."""
        ran = self.python(torch_facts.PROBE, self.limit)
        return torch_facts.read(ran.status, ran.out, ran.last_line)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a child and everything it started."""
    if os.name == "posix":
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
    else:
        child.kill()
    child.wait()
