"""What the user said about using several devices.

Callers: planning, executor (through the plan).
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle

EXECUTORS = ("uni", "mp", "ray", "external_launcher")


@dataclass(frozen=True, kw_only=True)
class ParallelArgs:
    """The parallelism section; sizes in devices."""

    tensor_parallel_size: int = knob(1, "int", "split every layer over so many devices", low=1, high=1024, short="tp")
    pipeline_parallel_size: int = knob(1, "int", "split the layers over so many stages", low=1, high=1024, short="pp")
    data_parallel_size: int = knob(1, "int", "so many copies of the engine", low=1, high=1024, short="dp")
    distributed_executor_backend: str | None = knob(None, "str", "how ranks are started", choices=EXECUTORS)

    def __post_init__(self) -> None:
        settle(self)
