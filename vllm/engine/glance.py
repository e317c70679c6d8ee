"""What a look at an engine holds: plain data that crosses from the engine to its front.

Does not know: engines. Called by: recorder makes it, wire carries it.
"""

import msgspec

FREE, CACHED, HELD, SHARED = range(4)


class StepMark(msgspec.Struct, array_like=True, gc=False):
    """One step that was settled; `at` in seconds of the monotonic clock, `seconds` between it and the one before."""

    step_id: int
    at: float
    seconds: float
    num_tokens: int
    num_sampled: int
    num_running: int
    num_waiting: int
    kv_usage: float


class SequenceMark(msgspec.Struct, gc=False):
    """One live sequence."""

    request_id: str
    index: int
    state: str
    """waiting, prefill or decode"""
    prompt_len: int
    num_computed: int
    num_cached: int
    """Prompt tokens that came from the prefix cache."""
    num_output: int
    tenant: str
    age: float
    """Seconds since it arrived."""


class Glance(msgspec.Struct, tag=True):
    """A look at an engine."""

    at: float
    num_blocks: int
    """Blocks that can be held, the null block not counted."""
    per_cell: int
    cells: bytes
    """One byte per `per_cell` blocks, the liveliest of them: FREE, CACHED (kept for hits), HELD, SHARED."""
    num_cached: int
    num_held: int
    steps: list[StepMark]
    sequences: list[SequenceMark]
    num_sequences: int
