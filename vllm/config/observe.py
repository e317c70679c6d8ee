"""What the user said about logs.

Callers: entrypoints, engine stats.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle


@dataclass(frozen=True, kw_only=True)
class ObserveArgs:
    """The logging section."""

    disable_log_stats: bool = knob(False, "bool", "no periodic line of throughput")
    enable_log_requests: bool = knob(False, "bool", "one line per request")

    def __post_init__(self) -> None:
        settle(self)
