"""What is true of the machine, as plain data: read once, before planning. Knows nothing of what is done with it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device that workers can run on. Bytes are bytes; `flags` are the CPU's instruction-set names."""

    kind: str
    """cpu or cuda"""
    name: str
    total_bytes: int
    free_bytes: int
    """Free now; on the CPU within the cgroup's limit."""
    num_cores: int = 1
    """CPU cores this process may use (affinity and cgroup quota)."""
    flags: frozenset[str] = frozenset()
    bf16: bool = True
    """Has fast bfloat16 arithmetic."""
    int8: bool = True
    """Has fast int8 dot products."""
    fp8: bool = True
    """Has fast 8-bit floating-point arithmetic."""
    count: int = 1
    """Devices of this kind that are visible."""
    others: tuple[str, ...] = ()
    """Who else holds much of its memory, in words."""
