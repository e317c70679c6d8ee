"""What the user said about using several devices.

Callers: planning, executor (through the plan).
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle
from vllm.errors import RefusedError

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
        if self.distributed_executor_backend == "external_launcher" and (
            self.tensor_parallel_size * self.pipeline_parallel_size > 1
        ):
            raise RefusedError(
                "distributed_executor_backend='external_launcher': an engine starts its own ranks, and each process of "
                "torchrun would start all of them. Leave it out and run the script with python, once.",
                field="distributed_executor_backend",
                value=self.distributed_executor_backend,
            )
