"""A progress bar over finished requests, with tokens per second. tqdm is imported only when one is shown."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from vllm.outputs import RequestOutput


class Progress:
    """`use_tqdm`: True, False, or a callable that makes a bar (as tqdm's constructor)."""

    def __init__(self, use_tqdm: bool | Callable[..., Any], total: int) -> None:
        self._bar: Any = None
        if use_tqdm and total:
            if use_tqdm is True:
                from tqdm import tqdm as make
            else:
                make = use_tqdm
            self._bar = make(total=total, desc="Processed prompts", dynamic_ncols=True, unit="prompt")
        self._start = time.perf_counter()
        self._inputs = self._outputs = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def note(self, output: RequestOutput) -> None:
        """One request is done."""
        if self._bar is None:
            return
        self._inputs += len(output.prompt_token_ids or ())
        self._outputs += sum(len(one.token_ids) for one in output.outputs)
        seconds = max(time.perf_counter() - self._start, 1e-9)
        speed = f"in {self._inputs / seconds:.1f} tok/s, out {self._outputs / seconds:.1f} tok/s"
        self._bar.set_postfix_str(speed, refresh=False)
        self._bar.update(1)
