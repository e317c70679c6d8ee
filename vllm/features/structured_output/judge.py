"""The judge of grammars: asks trial processes, kills one that takes too long, remembers the verdicts.

    check(source) ─▶ remembered? ─▶ a free trial process ─▶ verdict within LIMIT_S, else kill it and refuse

Does not know: requests, llguidance. Invariants: at most NUM_TRIALS processes and MAX_WAITING callers; a verdict takes
LIMIT_S at most, apart from waiting for a free process; processes end with this one. Called by: host.
"""

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vllm.errors import CapacityError, ValidationError
from vllm.features.structured_output.source import Source
from vllm.util import env

LIMIT_S = 5.0
START_S = 60.0
NUM_TRIALS = 2
MAX_WAITING = 64
_REMEMBERED = 4096


class Judge:
    """Verdicts on grammars for one tokenizer. `words` are the Compiler's."""

    def __init__(self, words: dict[str, Any], limit_s: float = LIMIT_S) -> None:
        self._words, self._limit_s = words, limit_s
        self._verdicts: OrderedDict[Source, str | None] = OrderedDict()
        self._asked: dict[Source, Future[str | None]] = {}
        self._free: list[_Trial] = []
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(NUM_TRIALS, thread_name_prefix="vllm-judge")
        atexit.register(self.close)

    def check(self, source: Source) -> "Future[str | None]":
        """Why the grammar cannot be used, or None. CapacityError when too many others wait."""
        with self._lock:
            if source in self._verdicts:
                self._verdicts.move_to_end(source)
                known: Future[str | None] = Future()
                known.set_result(self._verdicts[source])
                return known
            if source in self._asked:
                return self._asked[source]
            if len(self._asked) >= MAX_WAITING:
                raise CapacityError("Too many new grammars are being compiled; come again later.")
            future = self._asked[source] = self._threads.submit(self._ask, source)
            return future

    def close(self) -> None:
        """End the processes. Safe to call twice."""
        atexit.unregister(self.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            trials, self._free = self._free, []
        for trial in trials:
            trial.kill()

    def _ask(self, source: Source) -> str | None:
        """One question to a process of our own; a slow one is killed with it."""
        with self._lock:
            trial = self._free.pop() if self._free else None
        try:
            try:
                trial = trial or _Trial(self._words)
                why = trial.ask(source, self._limit_s)
            except _Dead as death:
                why, trial = str(death), None
            with self._lock:
                if trial is not None:
                    self._free.append(trial)
                self._verdicts[source] = why
                while len(self._verdicts) > _REMEMBERED:
                    self._verdicts.popitem(last=False)
            return why
        finally:
            with self._lock:
                self._asked.pop(source, None)


class _Dead(Exception):
    """The process ended, or had to be ended."""


class _Trial:
    """One trial process."""

    def __init__(self, words: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vllm.features.structured_output.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # why: Ctrl-C is the parent's
            env=env.for_child(PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        )
        try:
            self._line(json.dumps(words))
            self._answer(START_S, "it did not start")
        except _Dead as death:
            raise RuntimeError(f"The grammar compiler: {death}.") from None

    def ask(self, source: Source, limit_s: float) -> str | None:
        """The verdict. Raises _Dead."""
        self._line(json.dumps({"kind": source.kind, "text": source.text}))
        why = f"it takes longer to compile than the cap ({limit_s:g} s)"
        found = self._answer(limit_s, why).get("why")
        return None if found is None else str(found)

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _line(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self.kill()
            raise _Dead("the grammar compiler has ended") from None

    def _answer(self, limit_s: float, otherwise: str) -> dict[str, Any]:
        """The next line; `otherwise` is what it means when none comes in time."""
        assert self._process.stdout is not None
        out, data, ends = self._process.stdout, b"", time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if not selector.select(max(0.0, ends - time.monotonic())):
                    self.kill()
                    raise _Dead(otherwise)
                piece = os.read(out.fileno(), 65536)
                if not piece:
                    self.kill()
                    raise _Dead("it ends the compiler: too much memory or too deep")
                data += piece
        found: dict[str, Any] = json.loads(data)
        return found


def verdict(why: str | None, field: str = "structured_outputs") -> None:
    """Raise what a verdict says. Raises ValidationError."""
    if why is not None:
        text = why if why.startswith("structured_outputs") else f"{field}: {why}"
        raise ValidationError(text if text.endswith(".") else f"{text}.", field=field)
