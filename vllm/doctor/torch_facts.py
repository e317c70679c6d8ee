"""torch as a child process finds it: this process never imports it, so a broken or hanging one is a fact, not an end.

Does not know: GPUs' own tools, what is too old. Called by: machine.
"""

import json
from dataclasses import dataclass, field
from typing import Any

_MARK = "vllm-doctor-torch:"
PROBE = f"""
import json
try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    print({_MARK!r} + json.dumps({{"missing": True}}))
    raise SystemExit(0)
facts = {{"file": torch.__file__, "version": str(torch.__version__), "cuda": torch.version.cuda or ""}}
facts["hip"] = torch.version.hip or ""
facts["available"] = bool(torch.cuda.is_available())
if facts["available"]:
    facts["count"] = torch.cuda.device_count()
    facts["arches"] = list(torch.cuda.get_arch_list())
torch.ones(2) + 1
print({_MARK!r} + json.dumps(facts))
"""


@dataclass(frozen=True, slots=True)
class Torch:
    """`state`: works, missing, broken, slow (ran past the limit) or killed (by a signal, named in `problem`)."""

    state: str
    problem: str = ""
    file: str = ""
    version: str = ""
    cuda: str = ""
    """CUDA version it was built with; empty for a CPU or ROCm build."""
    hip: str = ""
    available: bool = False
    """torch.cuda works."""
    count: int = 0
    arches: tuple[str, ...] = field(default=())

    @property
    def numbers(self) -> tuple[int, int]:
        """(major, minor) of its version; (0, 0) when it has none."""
        return _numbers(self.version)

    @property
    def cuda_numbers(self) -> tuple[int, int]:
        """(major, minor) of its CUDA; (0, 0) for a build without."""
        return _numbers(self.cuda)


def read(status: int | None, out: str, last_line: str) -> Torch:
    """What the probe's end and output mean."""
    if status is None:
        return Torch("slow")
    if status < 0:
        return Torch("killed", signal_name(-status))
    told = next((line for line in out.splitlines() if line.startswith(_MARK)), None)
    if told is None or status != 0:
        return Torch("broken", last_line or f"exit status {status}")
    facts: dict[str, Any] = json.loads(told.removeprefix(_MARK))
    if facts.pop("missing", False):
        return Torch("missing")
    return Torch("works", **{**facts, "arches": tuple(facts.get("arches", ()))})


def _numbers(version: str) -> tuple[int, int]:
    words = version.split("+")[0].split(".")
    return (int(words[0]), int(words[1])) if len(words) > 1 and words[0].isdigit() and words[1].isdigit() else (0, 0)


def signal_name(number: int) -> str:
    """`9` -> `SIGKILL`."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
