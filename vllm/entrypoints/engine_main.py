"""The program of a server's engine process: build from the arguments on stdin, say ready, then commands in, news out.

    socket ─▶ reader thread ─▶ queue ─▶ loop: obey, step ─▶ socket ◀─ beat thread

A failing executor ends the process with its cause, so that the front can start another and resume everybody. Started
by: engine.client, as `python -m vllm.entrypoints.engine_main FD`. The process ends when its front does.
"""

import contextlib
import ctypes
import gc
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from vllm.engine.core import Engine
from vllm.engine.recorder import Recorder
from vllm.engine.wire import Abort, Add, Beat, Call, Command, Failed, Frames, Message, News, Peek, Ready, Refused, frame
from vllm.entrypoints.errands import Errands
from vllm.entrypoints.upkeep import Parts
from vllm.errors import CapacityError, sentence
from vllm.protocol.executor import Executor
from vllm.protocol.step import StepPlan, StepResult
from vllm.util.arith import largest
from vllm.util.log import get_logger

BEAT_S = 1.0
_log = get_logger(__name__)
_PR_SET_PDEATHSIG = 1


class Fatal(BaseException):
    """The executor failed. No `Exception`: the engine would end the running requests with it and go on."""


class Fragile:
    """An executor whose failures are fatal."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    def submit(self, plan: StepPlan) -> None:
        try:
            self._inner.submit(plan)
        except Exception as cause:
            raise Fatal(f"{type(cause).__name__}: {cause}") from cause

    def collect(self) -> StepResult:
        try:
            return self._inner.collect()
        except Exception as cause:
            raise Fatal(f"{type(cause).__name__}: {cause}") from cause

    def prepare(self) -> tuple[int, float] | None:
        return self._inner.prepare()

    @property
    def runner(self) -> Any:
        """The inner one's, for calls into the model."""
        return getattr(self._inner, "runner")  # noqa: B009

    def close(self) -> None:
        self._inner.close()


class Child:
    """One engine and its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.errands = Errands()
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._step_began = 0.0
        self._may_prepare = True
        self._recorder = Recorder()

    def serve(self, engine: Engine) -> None:
        """Obey and step until the socket closes, which ends the process."""
        engine.watch(self._recorder)
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()
        self.say(News([], engine.stats()))
        told = 0
        while True:
            self._obey(engine)
            self._step_began = time.monotonic()
            updates = engine.step() if self._may_step(engine) else []
            self._step_began = 0.0
            if self.errands.profile is not None:
                self.errands.profile.step()
            if updates or told != engine.num_added:
                told = engine.num_added  # why: the front counts who waits, also while a long prompt gives no token
                self.say(News(updates, engine.stats()))

    def say(self, message: Message) -> None:
        """Send one message whole."""
        data = frame(message)
        with self._lock:
            self._sock.sendall(data)

    def _obey(self, engine: Engine) -> None:
        """Carry out the commands that are there and those that come while the next step has time."""
        until = time.monotonic() + engine.leisure()
        while True:
            command = self._next(engine, until)
            if command is None:
                return
            if isinstance(command, Add):
                try:
                    engine.add(command.request, command.emitted)
                except ValueError as error:
                    self.say(Refused(command.request.request_id, str(error)))
            elif isinstance(command, Abort):
                engine.abort(command.request_id, command.index)
            elif isinstance(command, Call):
                self.say(self.errands.run(command, engine))
            elif isinstance(command, Peek):
                self.say(self._recorder.glance(engine, time.monotonic()))
            else:
                engine.reset_prefix_cache()

    def _may_step(self, engine: Engine) -> bool:
        return engine.has_work and not self.errands.is_paused

    def _next(self, engine: Engine, until: float) -> Command | None:
        """A command; None where there is none and, from `until` on, something else to do."""
        while self._may_prepare and not engine.has_work and self._inbox.empty():
            self._step_began = time.monotonic()
            try:
                self._may_prepare = engine.prepare()
            except Exception as cause:  # why: nobody asked for it, so nobody must suffer for it
                self._may_prepare = False
                _log.warning("nothing more is made ready ahead of requests: %s: %s", type(cause).__name__, cause)
            self._step_began = 0.0
        try:
            if not self._may_step(engine):
                return self._inbox.get()
            left = until - time.monotonic()
            return self._inbox.get(timeout=left) if left > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None

    def _read(self) -> None:
        try:
            frames = Frames()
            while data := self._sock.recv(1 << 20):
                frames.feed(data)
                for command in frames.commands():
                    if isinstance(command, Refused):
                        self.say(command)
                    else:
                        self._inbox.put(command)
            os._exit(0)
        except ConnectionError:  # why: a front that is gone may also say so with a reset
            os._exit(0)
        except BaseException as error:  # why: an engine that hears nothing any more would look alive for ever
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)

    def _beat(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                began = self._step_began
                self.say(Beat(time.monotonic() - began if began else 0.0, time.process_time()))
                time.sleep(BEAT_S)


def longest(engine: Engine) -> int:
    """Most tokens of a sequence that runs alone."""

    def fits(length: int) -> bool:
        try:
            engine.scheduler.door.check_fits(length)
        except CapacityError:
            return False
        return True

    return largest(1, engine.plan.max_model_len, fits)


def build(words: dict[str, object]) -> tuple[Engine, Ready, Errands]:
    """The engine for these arguments, what the front must know, and what can be asked of the engine beside steps.

    Raises ValueError where it cannot be built.
    """
    from vllm.assembly import Workers, announce, config_view, make_executor, make_plan
    from vllm.config.args import EngineArgs
    from vllm.engine.folder import compiler_words
    from vllm.features.pooling.host import only, recipe_of

    class FragileWorkers(Workers):
        """Whose executors end the process when they fail, also those made later."""

        def make(self, *args: Any, **more: Any) -> Executor:
            return Fragile(super().make(*args, **more))

    args = EngineArgs.from_mapping(words)
    folder, described, plan = make_plan(args, is_watched=True)
    words = {} if args.skip_tokenizer_init else compiler_words(args, folder, described.decoder.vocab)
    workers = FragileWorkers(plan, described, words, args.logits_processors)
    executor, resources = make_executor(workers)
    engine = Engine(plan.scheduler, plan.kv, executor, resources=resources)
    announce(plan)
    ready = Ready(
        max_model_len=plan.scheduler.max_model_len,
        longest=longest(engine),
        vocab_size=described.decoder.vocab,
        max_logprobs=args.max_logprobs,
        num_blocks=plan.kv.num_blocks,
        block_size=plan.kv.groups[0].block_size,
        description=f"{plan.architecture} as {plan.worker.dtype} on {plan.worker.device}",
        only=only(recipe_of(args, folder)),
    )
    parts = Parts(engine, workers, plan, config_view(plan, described), args.worker_extension_cls or "")
    return engine, ready, Errands(parts, args.profiler_config or {})


def main(build: Callable[[dict[str, object]], tuple[Engine, Ready, Errands]] = build) -> None:
    """Run the engine that `build` makes on the socket whose descriptor is the first argument."""
    # why: the front decides when the engine ends; Ctrl-C and a service manager's SIGTERM go to the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # why: a stopped process reads no end of file; the kernel ends it all the same
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    child = Child(socket.socket(fileno=int(sys.argv[1])))
    try:
        engine, ready, child.errands = build(json.loads(sys.stdin.read()))
        child.say(ready)
        gc.freeze()  # why: torch and the model are a million objects, and a full look at them holds up every step
        child.serve(engine)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)  # why: the front has gone, and nobody is left to tell
    except BaseException as error:  # why: whatever it is, the front must hear it before we go
        told = isinstance(error, ValueError | PermissionError | Fatal)
        text = sentence(error) if told else f"{type(error).__name__}: {error}"
        if not isinstance(error, ValueError | PermissionError):
            sys.excepthook(type(error), error, error.__traceback__)
        try:
            child.say(Failed(text[:2000]))
        finally:
            os._exit(1)


if __name__ == "__main__":
    main()
