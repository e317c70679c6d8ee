"""The engine in a process of its own, kept alive: requests out, updates in, and after a death everything goes on.

    add, abort ─▶ journal ─▶ child process ─▶ News ─▶ journal ─▶ each request's sink
                     └──── the child died: start another, resume what is open ────┘

Does not know: texts, HTTP. Invariants: all calls are made on one event loop; a sink gets each token once, in order, and
one update with a finish_reason, unless its request was aborted; a request that cannot go on ends with
finish_reason "error". Called by: front.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from vllm.engine.child import Child
from vllm.engine.glance import Glance
from vllm.engine.journal import Entry, Journal, Sink
from vllm.engine.stats import EngineStats
from vllm.engine.wire import Abort, Add, Call, Done, Message, News, Peek, Ready, Refused, Reset, frame
from vllm.errors import EngineDeadError, EngineGenerateError, ValidationError
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request
from vllm.util.log import get_logger

_log = get_logger(__name__)
LOOK_S = 0.5
PEEK_S = 2.0
PAUSES_S = (0.0, 0.5, 2.0, 5.0, 15.0)
"""Waits before attempts to start again; when the last one came to nothing the client is dead."""
SOUND_S = 60.0
"""An engine that has given a token, or lived for so long, was worth its start: what ends it begins a new count."""
KILLED = 0.2
"""How much of a failed attempt one is that a signal from outside ended."""
CALL_S = 600.0
_NO_STATS = EngineStats(0, 0, 0.0, 0, 0, 0, 0, 0, 0)


class EngineClient:
    """One engine process at a time, and the journal that outlives it."""

    def __init__(self, words: Mapping[str, Any], on_stats: Callable[[EngineStats], None] | None = None) -> None:
        """`words` are engine arguments as plain data; `on_stats` hears the counts of each engine (from 0 on)."""
        self._words = words
        self._on_stats = on_stats
        self._journal = Journal()
        self._child: Child | None = None
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._glance: asyncio.Future[Glance] | None = None
        self._unseen: deque[int] = deque()
        """Prompt lengths of the requests sent to this engine that its counts do not hold yet."""
        self._num_sent = 0
        self._has_served = False
        """The present engine has given a token."""
        self._awake = asyncio.Event()
        self._awake.set()
        self.is_paused = False
        self._calls: dict[int, asyncio.Future[Done]] = {}
        self._num_calls = 0
        self.stats = _NO_STATS
        self.num_restarts = 0
        self.dead: str = ""
        """Why there will be no engine any more; empty while there is hope."""

    async def start(self) -> Ready:
        """Start the engine and wait for it. EngineDeadError says why it cannot run."""
        self._task = asyncio.create_task(self._supervise())
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """End the engine; what is open ends with an error. Safe to call twice."""
        self._is_stopping = True
        self._awake.set()
        if self._child is not None:
            await self._child.close()
        if self._task is not None:
            await self._task

    async def wait_dead(self) -> None:
        """Returns when there will be no engine any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def is_serving(self) -> bool:
        """Whether there is an engine that can take work now."""
        return self._child is not None and self._child.is_ready and not self._child.ended.done()

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._journal)

    def queued(self) -> tuple[int, int]:
        """(requests, known tokens) that wait for a place; those that are on the way to the engine count as waiting."""
        if not self.is_serving:
            return self._journal.size()
        now = self.stats
        # why: with nobody in line the next ones get the free places at once
        first = 0 if now.num_waiting else now.num_free_rows
        coming = list(self._unseen)[first:]
        return now.num_waiting + len(coming), now.num_waiting_tokens + sum(coming)

    @property
    def pid(self) -> int | None:
        """Process id of the engine, None while there is none."""
        return self._child.pid if self._child is not None else None

    def add(self, request: Request, sink: Sink) -> None:
        """Queue a request; while the engine is restarted it waits. EngineDeadError when none will come."""
        if self.dead or self._is_stopping:
            raise EngineDeadError(f"The engine has stopped: {self.dead or 'the server ends'}")
        try:
            data = frame(Add(request))
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValidationError(f"The request holds something that cannot be sent to the engine: {error}.") from None
        self._journal.open(request, sink).frame = data
        self._send_due()

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request or one of its siblings without further news; unknown ones are ignored."""
        if request_id in self._journal:
            self._journal.drop(request_id, index)
            if self.is_serving and self._child is not None:
                self._child.send([frame(Abort(request_id, index))])
            self._send_due()

    async def peek(self) -> Glance | None:
        """A look at the engine; None while there is none that answers within a moment."""
        if not self.is_serving or self._child is None:
            return None
        if self._glance is None or self._glance.done():
            self._glance = asyncio.get_running_loop().create_future()
            self._child.send([frame(Peek())])
        # why: all who look at once share one answer; one who leaves must not take it from the others.
        done, _ = await asyncio.wait([self._glance], timeout=PEEK_S)
        return self._glance.result() if done else None

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix."""
        if self.is_serving and self._child is not None:
            self._child.send([frame(Reset())])

    async def call(
        self, method: str, *args: Any, words: Mapping[str, Any] | None = None, within_s: float = CALL_S
    ) -> Any:
        """What the engine answers to `method` (see entrypoints.errands). ValidationError says what it refuses,
        EngineGenerateError that it took longer than `within_s`; it is not stopped then."""
        if not self.is_serving or self._child is None:
            raise EngineDeadError("there is no engine to call")
        self._num_calls += 1
        number, answer = self._num_calls, asyncio.get_running_loop().create_future()
        data = frame(Call(number, method, list(args), dict(words or {})))
        self._calls[number] = answer
        self._child.send([data])
        try:
            done: Done = await asyncio.wait_for(answer, within_s)
        except TimeoutError:
            raise EngineGenerateError(f"{method} took more than {within_s:g} seconds") from None
        finally:
            self._calls.pop(number, None)
        if done.error:
            raise ValidationError(done.error, field=method)
        return done.result

    @property
    def is_asleep(self) -> bool:
        """Whether there is no engine because somebody wants none."""
        return not self._awake.is_set()

    async def sleep(self) -> None:
        """End the engine, and with it all it holds. Open requests stay in the journal and go on after `wake`."""
        self._awake.clear()
        if self._child is not None and not self._child.ended.done():
            await self._child.close()

    async def wake(self) -> None:
        """Start an engine again and wait until it serves. EngineDeadError when none can be had."""
        self._awake.set()
        while not self.is_serving:
            if self.dead or self._is_stopping:
                raise EngineDeadError(f"The engine has stopped: {self.dead or 'the server ends'}")
            await asyncio.sleep(0.02)

    async def pause(self, waits: bool) -> None:
        """Send nobody to the engine from now on; on return nobody there gets on, or (`waits`) all have ended."""
        self.is_paused = True
        if waits:
            while self.is_paused and self._journal.num_sent and not self.dead:
                await asyncio.sleep(0.02)
        elif self.is_serving:
            await self.call("pause")

    async def resume(self) -> None:
        """Go on where `pause` stopped."""
        self.is_paused = False
        if self.is_serving:
            await self.call("resume")
        self._send_due()

    # -- one engine after the other ------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        attempt = 0.0
        while not self.dead:
            await self._awake.wait()
            await asyncio.sleep(PAUSES_S[int(attempt)])
            if self._is_stopping:
                break
            self._unseen.clear()
            self._num_sent, self._has_served, began = 0, False, 0.0
            child = self._child = await Child.start(self._words, self._on_message)
            if self._is_stopping or self.is_asleep:
                await child.close()
            while not child.ended.done():
                child.look()
                began = began or (time.monotonic() if child.is_ready else 0.0)
                await asyncio.wait([child.ended], timeout=LOOK_S)
            cause, from_outside = await child.cause()
            if self._is_stopping:
                break
            is_sound = self._has_served or (began and time.monotonic() - began > SOUND_S)
            is_asleep = self.is_asleep or child.is_closed  # why: it may be woken before its end is seen here
            attempt = 0.0 if is_sound or is_asleep else attempt + (KILLED if from_outside else 1.0)
            self._ended(cause, from_outside, attempt, is_asleep)
        self._give_up(self.dead or "the server ends")

    def _ended(self, cause: str, from_outside: bool, attempt: float, is_asleep: bool) -> None:
        """The engine is gone. Unless it was sent to sleep: fail whom this death is laid to, and say so."""
        self.stats, self._glance = _NO_STATS, None
        for waiting in self._calls.values():
            if not waiting.done():  # why: answered or given up a moment ago
                waiting.set_result(Done(0, error=f"the engine ended: {cause}"))
        self._calls.clear()
        if is_asleep:
            self._journal.recall()
            return
        for entry in self._journal.lost(from_outside):
            _fail(entry, f"the engine died on this request each time: {cause}")
        if not self._ready.done():
            self.dead = cause
            return
        if attempt >= len(PAUSES_S):
            self.dead = f"the engine died again and again before it could serve, the last time: {cause}"
            return
        self.num_restarts += 1
        pause = PAUSES_S[int(attempt)]
        later = f" in {pause:g} s" if pause else ""
        _log.error("The engine died: %s. Starting another%s for %d open requests.", cause, later, len(self._journal))

    def _give_up(self, why: str) -> None:
        self.dead = why
        for entry in self._journal.take_all():
            _fail(entry, why)
        if not self._ready.done():
            self._ready.set_exception(EngineDeadError(why))

    # -- messages ------------------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if isinstance(message, News):
            self.stats = message.stats
            while len(self._unseen) > self._num_sent - message.stats.num_added:
                self._unseen.popleft()
            if self._on_stats is not None:
                self._on_stats(message.stats)
            for update in message.updates:
                entry = self._journal.note(update)
                if entry is not None:
                    self._has_served = True
                    entry.sink(update)
        elif isinstance(message, Ready):
            if not self._ready.done():
                self._ready.set_result(message)
        elif isinstance(message, Done):
            if (waiting := self._calls.get(message.number)) is not None and not waiting.done():
                waiting.set_result(message)
        elif isinstance(message, Glance):
            if self._glance is not None and not self._glance.done():
                self._glance.set_result(message)
        elif isinstance(message, Refused) and message.request_id in self._journal:
            entry = self._journal.entry(message.request_id)
            self._journal.drop(message.request_id)
            _fail(entry, message.why)
        self._send_due()

    def _send_due(self) -> None:
        """Send what may go. A request that gave tokens before, or lost siblings, is resumed with what it gave."""
        if not self._journal.has_waiting or not self.is_serving or self._child is None or self.is_paused:
            return
        due = self._journal.due()
        self._num_sent += len(due)
        self._unseen.extend(entry.request.prompt_len for entry in due)
        self._child.send([entry.frame or frame(Add(entry.request, entry.emitted)) for entry in due])
        for entry in due:
            entry.frame = b""


def _fail(entry: Entry, why: str) -> None:
    """Tell a request's sink that every open sibling ended."""
    for index in sorted(entry.emitted):
        entry.sink(SequenceUpdate(entry.request.request_id, index, [], finish_reason="error", error=why))
