"""Runs the checks in order and gathers what they say.

A check is an entry of the catalogue `vllm.doctor.checks`: NAMES, ORDER, LINES, check(machine), and EXAMPLES of words in
remedies, for the page that is made from LINES. One that raises is a fault of doctor, told as such; others still run.
Called by: entrypoints/cli/doctor.py.
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vllm.doctor.line import Finding, finding
from vllm.doctor.machine import Machine
from vllm.util.catalog import Catalogue

CATALOGUE = Catalogue("vllm.doctor.checks", "check")


@dataclass(frozen=True, slots=True)
class Broken:
    """A check that failed itself."""

    check: str
    trace: str


def names() -> list[str]:
    """All checks, in the order in which they run."""
    return sorted(CATALOGUE.names(), key=lambda name: CATALOGUE.load(name).ORDER)


def examine(machine: Machine, wanted: Sequence[str]) -> Iterator[Finding | Broken]:
    """What each of the `wanted` checks says, as soon as it says it. Raises UnknownName (a ValueError)."""
    for name in wanted:
        CATALOGUE.module_of(name)
    for name in [name for name in names() if name in wanted]:
        try:
            module = CATALOGUE.load(name)
            for code, words in module.check(machine):
                yield finding(name, code, module.LINES[code], words, machine.cpu_chosen)
        except Exception:
            yield Broken(name, traceback.format_exc())
