"""How much slower this machine is right now than an idle one, for tests that hold a budget of seconds.

A budget of processor seconds is exact on an idle machine; where neighbours share the cores' caches and clocks the
same work takes twice as much. So known work is measured beside it, and the budget grows as that does. A program that
became slower itself still fails: the known work did not.
"""

import resource
import subprocess
import sys

_IDLE_S = 0.125
"""Processor seconds of `_WORK` on two idle cores of the machine where the budgets were made (AMD EPYC, 2026-11-21)."""
_WORK = "import asyncio, email.message, http.client, logging.config, unittest.mock, xml.dom.minidom, zipfile"


def child_seconds(command: list[str], **more: object) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Processor seconds of a command, and what it came to."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def slowness() -> float:
    """1 on an idle machine of that kind, 2 where known work takes twice as long now; never below 1."""
    return max(1.0, child_seconds([sys.executable, "-I", "-c", _WORK])[0] / _IDLE_S)
