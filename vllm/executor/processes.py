"""One worker process per rank, started as `python -m vllm.executor.worker_main`, fed through pipes.

    engine ── submit, collect, prepare ──▶ every rank;   StepResult ◀── the driver: tp rank 0 of the last pipeline stage

A rank that fails says why in one sentence and ends; then all end, and the next call here raises EngineDeadError with
that sentence. Ranks end by themselves when this process does. Called by: assembly, for more than one device.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vllm.errors import EngineDeadError
from vllm.executor.frames import FrameReader, Kind, Start, frame, pack_kv, write
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import LoadPlan, WorkerPlan
from vllm.protocol.step import StepPlan, StepResult
from vllm.util import env

_PATIENCE_S = 5.0
_NO_CALLABLES = "logits_processors are functions of this process and cannot run in workers; use one device for them"


class ProcessExecutor:
    """Owns the worker processes."""

    def __init__(
        self,
        worker_plan: WorkerPlan,
        kv_plan: KVPlan,
        load_plan: LoadPlan,
        config: dict[str, Any],
        compiler_words: Mapping[str, Any] | None = None,
    ) -> None:
        """Start every rank and wait until all are ready. EngineDeadError says what stopped one."""
        self._compiler_words = dict(compiler_words or {})
        self._size = worker_plan.tp_size * worker_plan.pp_size
        self._driver = (worker_plan.pp_size - 1) * worker_plan.tp_size
        self._folder = tempfile.mkdtemp(prefix="vllm-world-")
        self._ranks: list[subprocess.Popen[bytes]] = []
        self._readers: list[FrameReader] = []
        self._selector = selectors.DefaultSelector()
        self._answers: deque[Any] = deque()
        self._refused: dict[int, list[tuple[int, int, str]]] = {}
        self._num_ready, self._cause = 0, ""
        try:
            for rank in range(self._size):
                self._start(rank, worker_plan, kv_plan, load_plan, config)
            while self._num_ready < self._size:
                self._listen()
        except BaseException:
            self.close()
            raise

    def submit(self, plan: StepPlan) -> None:
        """Send the plan to every rank."""
        self._tell(Kind.STEP, self._without_callables(plan))

    def collect(self) -> StepResult:
        """Result of the oldest plan in flight, from the driver."""
        self._tell(Kind.COLLECT)
        result: StepResult = self._answer()
        for seq_id, epoch, why in self._refused.pop(result.step_id, ()):
            _fail(result, seq_id, epoch, why)
        return result

    def prepare(self) -> tuple[int, float] | None:
        """See `protocol.executor`. Every rank does the same piece, for there are collectives in it."""
        self._tell(Kind.PREPARE)
        tried: tuple[int, float] | None = self._answer()
        return tried

    def close(self) -> None:
        """End every rank: close its pipe, wait a little, then kill it."""
        self._cause = self._cause or "the executor is closed"
        for process in self._ranks:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self._ranks:
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._ranks.clear()
        self._readers.clear()
        self._selector.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(
        self, rank: int, worker_plan: WorkerPlan, kv_plan: KVPlan, load_plan: LoadPlan, config: dict[str, Any]
    ) -> None:
        threads = max(1, worker_plan.num_threads // self._size)
        kind = worker_plan.device.partition(":")[0]
        mine = replace(
            worker_plan,
            device="cpu" if kind == "cpu" else f"{kind}:{rank}",
            num_threads=threads,
            tp_rank=rank % worker_plan.tp_size,
            pp_rank=rank // worker_plan.tp_size,
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.executor.worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env.for_child(OMP_NUM_THREADS=str(threads), PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        )
        self._ranks.append(process)
        assert process.stdin is not None and process.stdout is not None
        self._readers.append(FrameReader(process.stdout.fileno()))
        self._selector.register(process.stdout, selectors.EVENT_READ, rank)
        start = Start(
            rank, f"file://{self._folder}/world", config, mine, load_plan, pack_kv(kv_plan), self._compiler_words
        )
        with contextlib.suppress(BrokenPipeError):
            write(process.stdin.fileno(), frame(Kind.START, start))

    def _tell(self, kind: Kind, message: object = None) -> None:
        """The same words to every rank."""
        self._check()
        data = frame(kind, message)
        for rank, process in enumerate(self._ranks):
            assert process.stdin is not None
            try:
                write(process.stdin.fileno(), data)
            except OSError:
                self._hear_last_words(rank)

    def _answer(self) -> Any:
        """The driver's next one."""
        while not self._answers:
            self._check()
            self._listen()
        return self._answers.popleft()

    def _listen(self) -> None:
        """Wait for a message of any rank. EngineDeadError when one has failed."""
        for key, _ in self._selector.select():
            rank: int = key.data
            reader = self._readers[rank]
            alive = reader.feed()
            for kind, message in reader.frames():
                self._take(rank, kind, message)
            if not alive:
                self._hear_last_words(rank)

    def _take(self, rank: int, kind: Kind, message: Any) -> None:
        if kind is Kind.READY:
            self._num_ready += 1
        elif kind in (Kind.RESULT, Kind.PREPARED):
            self._answers.append(message)
        else:
            # why: a rank that is killed breaks the others' connections, and one of them may be heard of first.
            time.sleep(0.1)
            for other, process in enumerate(self._ranks):
                if other != rank and (code := process.poll()) is not None and code < 0:
                    self._die(f"worker {other} of {self._size} was killed by signal {-code}")
            self._die(f"worker {rank} of {self._size} failed: {message}")

    def _hear_last_words(self, rank: int) -> None:
        """The rank's pipe is closed: what it said before is the cause, else how it ended."""
        reader = self._readers[rank]
        while reader.feed():
            pass
        for kind, message in reader.frames():
            self._take(rank, kind, message)
        code = self._ranks[rank].wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._die(f"worker {rank} of {self._size} {how}")

    def _die(self, cause: str) -> None:
        self._cause = cause
        for process in self._ranks:
            process.kill()
        self._check()

    def _check(self) -> None:
        if self._cause:
            raise EngineDeadError(self._cause)

    def _without_callables(self, plan: StepPlan) -> StepPlan:
        """The plan as it can be sent; sequences that bring functions fail alone when its result comes."""
        for o in plan.opens:
            if o.sampling.logits_processors:
                self._refused.setdefault(plan.step_id, []).append((o.seq_id, o.epoch, _NO_CALLABLES))
                o.sampling = o.sampling.clone()
                o.sampling.logits_processors = None
        return plan


def _fail(result: StepResult, seq_id: int, epoch: int, why: str) -> None:
    """Take a sequence's tokens out of a result and report it failed."""
    result.failed.append((seq_id, epoch, why))
    for i, pair in enumerate(zip(result.seq_ids, result.epochs, strict=True)):
        if pair == (seq_id, epoch):
            result.tokens[i] = []
            result.logprobs.pop(i, None)
