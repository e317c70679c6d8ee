"""What the user said about steps: their size, their order. `None` is left to planning.

Callers: planning.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle


@dataclass(frozen=True, kw_only=True)
class SchedulerArgs:
    """The scheduling section; counts in tokens or sequences."""

    max_num_batched_tokens: int | None = knob(None, "int", "most query tokens in one step", low=1)
    max_num_seqs: int | None = knob(None, "int", "most sequences running at once", low=1, high=65536)
    scheduling_policy: str = knob("fcfs", "str", "who waits for whom", choices=("fcfs", "priority", "fair"))
    enable_chunked_prefill: bool | None = knob(None, "bool", "let a long prompt share steps with running sequences")
    async_scheduling: bool | None = knob(None, "bool", "plan the next step before this one's tokens are known")
    long_prefill_token_threshold: int = knob(0, "int", "most prompt tokens of one sequence in a step; 0: no cap")
    disable_sliding_window: bool = knob(False, "bool", "cap the context at the window instead of sliding")
    max_num_queued_reqs: int | None = knob(None, "int", "refuse a request when so many wait", low=1)
    max_num_queued_tokens: int | None = knob(None, "int", "refuse a request when so many prompt tokens wait", low=1)
    stream_interval: int = knob(1, "int", "tokens between two pieces of a stream", low=1)

    def __post_init__(self) -> None:
        settle(self)
