"""Answers that may take long: server-sent events, and waiting for a whole answer, both ended when the client leaves.

Invariants: a failure before the first event is a proper error status; one behind it is an error event and then [DONE];
the generator is closed in any case. Called by: routes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from vllm.entrypoints.openai.errors import as_http

DONE = b"data: [DONE]\n\n"
T = TypeVar("T")
_HEAD = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class EventStream:
    """A streamed answer: each piece of `events` is one or more whole events, sent in one go."""

    def __init__(
        self, first: bytes, events: AsyncGenerator[bytes, None], headers: dict[str, str], on_end: Callable[[], None]
    ) -> None:
        self._first, self._events, self._on_end = first, events, on_end
        self._headers = _HEAD + [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]

    @classmethod
    async def begun(
        cls,
        request: Request,
        events: AsyncGenerator[bytes, None],
        headers: dict[str, str],
        on_end: Callable[[], None],
    ) -> "EventStream | None":
        """The stream once its first piece is there, so that what fails before it is an error status.

        `on_end` is called in any case: a generator that never began runs no `finally`.
        """
        first = None
        try:
            first = await unless_gone(request, anext(events, b""))
        finally:
            if first is None:
                await events.aclose()
                on_end()
        return None if first is None else cls(first, events, headers, on_end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
            await self._events.aclose()
            self._on_end()

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        try:
            async for piece in self._events:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            told = b"data: " + as_http(error).body() + b"\n\n" + DONE
            await send({"type": "http.response.body", "body": told, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
