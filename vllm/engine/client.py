"""The engine in a process of its own, kept alive: requests out, updates in, and after a death everything goes on.

    add, abort ─▶ journal ─▶ child process ─▶ News ─▶ journal ─▶ each request's sink
                     └──── the child died: start another, resume what is open ────┘

Does not know: texts, HTTP. Invariants: all calls are made on one event loop; a sink gets each token once, in order, and
one update with a finish_reason, unless its request was aborted; a request that cannot go on ends with
finish_reason "error". Called by: front.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from vllm.engine.child import Child
from vllm.engine.glance import Glance
from vllm.engine.journal import Entry, Journal, Sink
from vllm.engine.stats import EngineStats
from vllm.engine.wire import Abort, Add, Message, News, Peek, Ready, Refused, Reset, frame
from vllm.errors import EngineDeadError, ValidationError
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request
from vllm.util.log import get_logger

_log = get_logger(__name__)
LOOK_S = 0.5
PEEK_S = 2.0
PAUSES_S = (0.0, 0.5, 2.0, 5.0)
"""Waits between attempts to start again; after the last one failed the client is dead."""
KILLED = 0.2
"""How much of a failed attempt one is that a signal from outside ended."""
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

    # -- one engine after the other ------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        attempt = 0.0
        while not self.dead:
            await asyncio.sleep(PAUSES_S[int(attempt)])
            if self._is_stopping:
                break
            self._unseen.clear()
            self._num_sent = 0
            child = self._child = await Child.start(self._words, self._on_message)
            if self._is_stopping:
                await child.close()
            while not child.ended.done():
                child.look()
                await asyncio.wait([child.ended], timeout=LOOK_S)
            cause, from_outside = await child.cause()
            if self._is_stopping:
                break
            attempt = 0.0 if child.is_ready else attempt + (KILLED if from_outside else 1.0)
            self._died(cause, from_outside, is_last=not self._ready.done() or attempt >= len(PAUSES_S))
        self._give_up(self.dead or "the server ends")

    def _died(self, cause: str, from_outside: bool, is_last: bool) -> None:
        """Fail whom this death is laid to, and say so."""
        self.stats, self._glance = _NO_STATS, None
        failed = self._journal.lost(from_outside)
        for entry in failed:
            _fail(entry, f"the engine died on this request each time: {cause}")
        if is_last:
            self.dead = cause
            return
        self.num_restarts += 1
        level = logging.ERROR if not self._is_stopping else logging.INFO
        _log.log(level, "The engine died: %s. Starting another for %d open requests.", cause, len(self._journal))

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
                    entry.sink(update)
        elif isinstance(message, Ready):
            if not self._ready.done():
                self._ready.set_result(message)
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
        if not self._journal.has_waiting or not self.is_serving or self._child is None:
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
