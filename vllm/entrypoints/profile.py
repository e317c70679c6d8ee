"""start_profile and stop_profile: a trace of the engine's steps, written for Perfetto or chrome://tracing.

Does not know: engines; somebody calls `step` after each step. Called by: offline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm.errors import RefusedError, ValidationError
from vllm.util.log import get_logger

_log = get_logger(__name__)
_FLAGS = {
    "torch_profiler_with_stack": "with_stack",
    "torch_profiler_record_shapes": "record_shapes",
    "torch_profiler_with_memory": "profile_memory",
    "torch_profiler_with_flops": "with_flops",
}


class Profile:
    """One trace in the making."""

    def __init__(self, config: Mapping[str, Any], prefix: str | None = None) -> None:
        """Start it. `config` has the keys of vLLM's ProfilerConfig; those that only shape its own files are let be."""
        import torch

        kind = config.get("profiler") or "torch"
        if kind != "torch":
            raise RefusedError(f"profiler={kind!r} is not in this version; use 'torch'.", field="profiler_config")
        for name in ("delay_iterations", "max_iterations"):
            if not isinstance(config.get(name, 0), int) or config.get(name, 0) < 0:
                raise ValidationError.of(name, config[name], "a whole number >= 0")
        self._folder = Path(config.get("torch_profiler_dir") or "vllm_profile")
        self._prefix = prefix or "vllm"
        self._wait, self._most = config.get("delay_iterations", 0), config.get("max_iterations", 0)
        self._num_steps = 0
        words = {ours: bool(config[name]) for name, ours in _FLAGS.items() if name in config}
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if torch.accelerator.is_available():
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=kinds, **words)
        self._is_on = self._is_over = False
        if not self._wait:
            self._begin()

    def _begin(self) -> None:
        self._is_on = True
        self._profiler.start()

    def step(self) -> None:
        """A step is over."""
        self._num_steps += 1
        if not self._is_on and not self._is_over and self._num_steps >= self._wait:
            self._begin()
        elif self._is_on and self._most and self._num_steps >= self._wait + self._most:
            self._end()

    def _end(self) -> None:
        self._profiler.stop()
        self._is_on, self._is_over = False, True

    def stop(self) -> Path | None:
        """End it and write the trace; None where it never began."""
        if self._is_on:
            self._end()
        if not self._is_over:
            _log.warning("No step was profiled: %d steps ran, and delay_iterations is %d.", self._num_steps, self._wait)
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{self._prefix}.{os.getpid()}.{time.time_ns()}.pt.trace.json.gz"
        self._profiler.export_chrome_trace(str(file))
        _log.info("The trace of %d steps is in %s.", self._num_steps, file)
        return file
