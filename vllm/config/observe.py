"""What the user said about logs and traces.

Callers: entrypoints, engine stats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.config.knob import knob, settle

LEVELS = ("debug", "info", "warning", "error", "critical", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, kw_only=True)
class ObserveArgs:
    """The logging section."""

    disable_log_stats: bool = knob(False, "bool", "no line of throughput every ten seconds")
    enable_log_requests: bool = knob(False, "bool", "a line when a request comes and when it ends")
    max_log_len: int | None = knob(None, "int", "most characters of a prompt or an answer in the log; default 200")
    log_level: str | None = knob(None, "str", "level of the log; default VLLM_LOGGING_LEVEL", choices=LEVELS)
    profiler_config: dict[str, Any] | None = knob(
        None, "json", "what start_profile does: torch_profiler_dir, delay_iterations, max_iterations"
    )
    otlp_traces_endpoint: str | None = knob(None, "str", "where OpenTelemetry spans go, over HTTP; needs vllm[otel]")

    def __post_init__(self) -> None:
        settle(self)
