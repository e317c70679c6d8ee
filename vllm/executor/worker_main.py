"""The program of one rank: read a start message, build, say ready, then do as the engine says until the pipe closes:
give a plan to the device, wait for the oldest, make a size of step ready. All ranks do the same in the same order, so
that each collective meets its own.

A thread of its own reads the pipe, so that the end of the parent ends this process even while it waits for another
rank. Started by: processes. Speaks frames on the original stdout; whatever prints goes to stderr.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import Any

from vllm.executor.frames import FrameReader, Kind, Start, frame, unpack_kv, write

_Inbox = queue.SimpleQueue[tuple[Kind, Any]]


def main() -> None:
    """Run one rank on stdin and stdout."""
    # why: Ctrl-C goes to the whole foreground group; the parent decides when workers end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox: _Inbox = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.fileno(), inbox), daemon=True).start()
    try:
        _, start = inbox.get()
        runner = _build(start)
        write(out, frame(Kind.READY, start.rank))
        tell = runner.is_driver
        while True:
            kind, plan = inbox.get()
            if kind is Kind.STEP:
                runner.submit(plan)
                continue
            answer, kind = (
                (runner.collect(), Kind.RESULT) if kind is Kind.COLLECT else (runner.prepare(), Kind.PREPARED)
            )
            if tell:
                write(out, frame(kind, answer))
    except BaseException as error:  # why: whatever it is, the parent must hear it before we go
        sentence = f"{type(error).__name__}: {error}"
        try:
            write(out, frame(Kind.FAILED, sentence.splitlines()[0][:500]))
        finally:
            _log_trace()
            os._exit(1)


def _read(fd: int, inbox: _Inbox) -> None:
    reader = FrameReader(fd)
    while reader.feed():
        for message in reader.frames():
            inbox.put(message)
    os._exit(0)


def _build(start: Start) -> Any:
    from vllm.loading.loader import load_weights
    from vllm.parallel.mesh import connect
    from vllm.parts.hf import HFConfig
    from vllm.planning.describe import describe
    from vllm.platforms.base import platform_of
    from vllm.worker.make import make_runner

    plan = start.worker
    platform = platform_of(plan.device)
    platform.prepare(start.rank, plan.num_threads)
    sizes, in_order = (plan.tp_size, plan.pp_size), plan.deterministic
    mesh = connect(*sizes, start.rank, platform.backend(), start.world, in_order=in_order)
    described = describe(HFConfig(start.config))
    tensors = load_weights(described.decoder, described.weights, start.load, plan)
    from vllm.features.pooling.device import PoolingHead

    stages: list[Any] = [PoolingHead()]
    if start.compiler_words:
        from vllm.features.structured_output.compiler import Compiler
        from vllm.features.structured_output.device import GrammarStage

        stages.append(GrammarStage(Compiler(**start.compiler_words)))
    return make_runner(described.decoder, tensors, plan, unpack_kv(start.kv), mesh, extra_stages=stages)


def _log_trace() -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)


if __name__ == "__main__":
    main()
