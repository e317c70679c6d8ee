"""Programmatic dependent launch: a kernel is set up while the one before it still runs, and waits inside.

A kernel of a chain calls `follow()` in every program before it touches memory that another kernel writes, and is
launched with `**CHAINED`. A kernel that follows without that is safe too: it starts when the one before is done.

    follow   wait, then let the next one be set up: so when a kernel starts, the one before the last is done
    lead     let the next one be set up at once; later `behind`: wait. Several kernels may then have their weights on
             the way. What comes next must read nothing before its wait but what is older than both
Called by: kernels of this folder.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.triton.chip import the_chip

IS_CHAINED = the_chip().is_nvidia and the_chip().capability >= (9, 0)
_ON = tl.constexpr(IS_CHAINED)
CHAINED = {"launch_pdl": True} if IS_CHAINED else {}


@triton.jit
def follow():
    """Wait until the kernel before has written all it writes; let the next one be set up."""
    if _ON:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def lead():
    """Let the next kernel be set up."""
    if _ON:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def behind():
    """Wait until the kernel before has written all it writes."""
    if _ON:
        tl.extra.cuda.gdc_wait()


_MOST_TICKETS = 1 << 18
_tickets: dict[torch.device, torch.Tensor] = {}


def tickets(device: torch.device, num: int) -> torch.Tensor:
    """At least `num` int32 zeros, by which programs find out who of them comes last; a kernel leaves zeros behind.

    One set per device is enough: kernels that use it follow each other.
    """
    assert num <= _MOST_TICKETS, f"{num} tickets"
    if device not in _tickets:
        _tickets[device] = torch.zeros(_MOST_TICKETS, dtype=torch.int32, device=device)
    return _tickets[device]
