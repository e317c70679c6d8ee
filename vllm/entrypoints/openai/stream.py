"""Answers that may take long: server-sent events, and waiting for a whole answer, both ended when the client leaves.

Invariants: a failure before the first event is a proper error status; one behind it is an error event in the words of
the API; the generator is closed in any case. Called by: routes.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from vllm.engine.front import Flow
from vllm.entrypoints.openai.errors import HttpError, as_http, openai_error
from vllm.errors import EngineGenerateError
from vllm.util.log import get_logger

_log = get_logger(__name__)
DONE = b"data: [DONE]\n\n"
KEEP = b": keep-alive\n\n"
PLAIN_SEND = "vllm.send"
"""Key of a scope: the server's own `send`; middleware, which only cares for how an answer begins, is not around it."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """How an API writes a stream."""

    media_type: str
    failed: Callable[[HttpError], bytes]
    """The last piece of a stream that cannot go on."""
    alive: bytes
    """A piece that means nothing."""


SSE = Form("text/event-stream; charset=utf-8", lambda error: b"data: " + openai_error(error) + b"\n\n" + DONE, KEEP)


class EventStream:
    """A streamed answer: each piece of `events` is one or more whole events, sent in one go."""

    def __init__(self, first: "asyncio.Task[bytes]", asked: "Stream") -> None:
        self._first, self._asked = first, asked
        self.headers = {"content-type": asked.form.media_type, "cache-control": "no-cache", **asked.headers}
        self.status_code = 200

    @classmethod
    async def begun(cls, request: Request, asked: "Stream") -> "EventStream | None":
        """The stream once its first piece is there, so that what fails before it is an error status; None when the
        client left first. With keep-alives it begins at the latest when one is due.

        `on_end` is called in any case: a generator that never began runs no `finally`.
        """
        first = asyncio.ensure_future(_next(asked.events))
        gone = asyncio.ensure_future(_gone(request.receive))
        made = None
        try:
            await asyncio.wait({first, gone}, timeout=asked.keep_alive_s or None, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                first.result()
            if first.done() or not gone.done():
                made = cls(first, asked)
            return made
        finally:
            gone.cancel()
            if made is None:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
                await asked.events.aclose()
                asked.on_end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump: asyncio.Future[None]
        driven = None
        gone = asyncio.ensure_future(_gone(receive))
        try:
            if self._asked.flow is not None and not self._asked.keep_alive_s:
                # its first piece is there
                driven = _Driven(self._pump(send, scope.get(PLAIN_SEND, send)), self._asked.flow)
                pump = driven.ended
            else:
                pump = asyncio.ensure_future(self._pump(send, send))
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if driven is not None:
                driven.stop()
            for task in (pump, gone, self._first):
                task.cancel()
            await asyncio.gather(pump, gone, self._first, return_exceptions=True)
            await self._asked.events.aclose()
            self._asked.on_end()

    async def _pump(self, begin: Send, send: Send) -> None:
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in self.headers.items()]
        await begin({"type": "http.response.start", "status": self.status_code, "headers": headers})
        try:
            await self._send(await self._alive(self._first, send), send)
            if self._asked.keep_alive_s:
                while piece := await self._alive(asyncio.ensure_future(_next(self._asked.events)), send):
                    await self._send(piece, send)
            else:
                async for piece in self._asked.events:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            told = as_http(error)
            if told.status == 500 and not isinstance(error, EngineGenerateError):
                _log.error("A stream failed.", exc_info=error)
            await self._send(self._asked.form.failed(told), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, piece: bytes, send: Send) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _alive(self, coming: "asyncio.Task[bytes]", send: Send) -> bytes:
        """The next piece; while it does not come, say from time to time that the stream lives."""
        try:
            while self._asked.keep_alive_s:
                done, _ = await asyncio.wait({coming}, timeout=self._asked.keep_alive_s)
                if done:
                    break
                await self._send(self._asked.form.alive, send)
            return await coming
        except asyncio.CancelledError:
            coming.cancel()
            raise


class _Driven:
    """Takes a coroutine on from where the flow's news come in, so that no task has to be woken for each piece.

    It may wait for its flow, and for futures (a socket that is full).
    """

    def __init__(self, work: Coroutine[Any, Any, None], flow: Flow) -> None:
        self._work = work
        self._blocker: asyncio.Future[Any] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flow.drive(self._on_news)
        self._on_news()

    def _on_news(self) -> None:
        if self._blocker is not None or self.ended.done():
            return
        try:
            blocker = self._work.send(None)
        except StopIteration:
            self.ended.set_result(None)
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            if blocker is not None:
                blocker._asyncio_future_blocking = False  # why: that is how a task takes a future over
                self._blocker = blocker
                blocker.add_done_callback(self._on_free)

    def _on_free(self, blocker: "asyncio.Future[Any]") -> None:
        self._blocker = None
        self._on_news()

    def stop(self) -> None:
        """End it where it is. Nothing for one that has ended."""
        if self.ended.cancel():
            with contextlib.suppress(asyncio.CancelledError, StopIteration):
                self._work.throw(asyncio.CancelledError())  # why: closing it would leave its generators running


@dataclass(slots=True)
class Stream:
    """What is to be streamed. Its pieces are never empty."""

    events: AsyncGenerator[bytes, None]
    headers: dict[str, str]
    on_end: Callable[[], None]
    form: Form = SSE
    keep_alive_s: float = 0.0
    flow: Flow | None = None
    """All that the events wait for, where it is that."""


async def _next(events: AsyncGenerator[bytes, None]) -> bytes:
    """The next piece, b"" at the end."""
    return await anext(events, b"")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives, None when the client left first (then `work` is cancelled)."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
