"""What the offline measurements share: an LLM from the command line, random batches, and where a step's time goes.

Called by: latency, throughput, engine.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.entrypoints.bench.samples import random_ids

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs
    from vllm.entrypoints.llm import LLM


def add_engine_arguments(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Every knob of the engine, some with another default than elsewhere."""
    from vllm.config.args import EngineArgs

    EngineArgs.add_cli_args(parser)
    parser.set_defaults(**defaults)


def engine_args(arguments: argparse.Namespace) -> EngineArgs:
    """The engine's part of a command line."""
    from vllm.config.args import EngineArgs

    return EngineArgs.from_cli_args(arguments)


def make_llm(arguments: argparse.Namespace) -> LLM:
    """The engine, ready."""
    from vllm.entrypoints.llm import LLM

    return LLM.from_engine_args(engine_args(arguments))


def vocab_of(llm: LLM) -> int:
    """Number of token ids."""
    return int(llm.llm_engine.assembled.intake.limits.vocab_size)


def token_prompts(rng: random.Random, lengths: list[int], vocab: int) -> list[dict[str, Any]]:
    """A prompt of random ids for each length."""
    return [{"prompt_token_ids": random_ids(rng, length, vocab)} for length in lengths]


def write_json(path: str | None, figures: dict[str, Any]) -> None:
    """Keep the figures where --output-json says."""
    if path is not None:
        Path(path).write_text(json.dumps(figures, indent=4) + "\n", encoding="utf-8")


class StepMeter:
    """Where the engine's loop spends its time: outside the executor (planning, settling, delivering), and in giving a
    plan to it. On a CPU giving is the computation itself."""

    def __init__(self, llm: LLM) -> None:
        self._engine = llm.llm_engine.assembled.engine
        self._inner, self._llm_engine = self._engine._executor, llm.llm_engine
        self._step = llm.llm_engine.step
        self.in_submit = self.in_collect = self.in_step = 0.0
        self._before = 0

    def __enter__(self) -> StepMeter:
        self._before = self._engine.stats().num_steps
        self._engine._executor = self
        self._llm_engine.step = self._timed
        return self

    def __exit__(self, *_: object) -> None:
        self._engine._executor = self._inner
        del self._llm_engine.step

    def _timed(self) -> Any:
        began = time.perf_counter()
        try:
            return self._step()
        finally:
            self.in_step += time.perf_counter() - began

    def submit(self, plan: Any) -> None:
        """As the executor's, timed."""
        began = time.perf_counter()
        try:
            self._inner.submit(plan)
        finally:
            self.in_submit += time.perf_counter() - began

    def collect(self) -> Any:
        """As the executor's, timed."""
        began = time.perf_counter()
        try:
            return self._inner.collect()
        finally:
            self.in_collect += time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        """Milliseconds per step."""
        steps = max(1, self._engine.stats().num_steps - self._before)
        host = self.in_step - self.in_submit - self.in_collect
        return {
            "host_ms": round(host / steps * 1e3, 4),
            "submit_ms": round(self.in_submit / steps * 1e3, 4),
            "wait_ms": round(self.in_collect / steps * 1e3, 4),
        }
