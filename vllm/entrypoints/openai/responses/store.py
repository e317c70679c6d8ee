"""Responses that were made, for as long as there is room: what previous_response_id, GET and cancel look at.

Bounded by count and by bytes; the oldest that is finished goes first. Does not know: HTTP, the engine. Invariant: a
response is seen only with the key that made it. Called by: making, routes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vllm.entrypoints.openai.errors import HttpError

MAX_BYTES = 256 * 2**20
"""Most bytes of all that is stored."""


@dataclass(slots=True, eq=False)
class Entry:
    """One response, finished or in the making."""

    owner: str
    response: dict[str, Any]
    input: list[dict[str, Any]]
    conversation: list[dict[str, Any]]
    """Every message up to and, once it is finished, with the answer; without instructions."""
    cancel: Callable[[], None] | None = None
    """Ends its making; None when it is finished."""
    events: list[bytes] = field(default_factory=list)
    """What a stream of it said, if it is made in the background."""
    is_told: bool = False
    """`events` are complete."""
    num_bytes: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """There is something new."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self) -> None:
        """Returns when there is something new."""
        await self._news.wait()


class Store:
    """Entries by id."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[str, Entry] = {}
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_on(self) -> bool:
        """Whether anything is stored."""
        return self._most > 0

    def put(self, entry: Entry) -> None:
        """Keep an entry, or what has become of it, where there is room.

        HttpError 503 for an unfinished one when all room is taken by such; one that is finished is then not kept.
        """
        response_id = entry.response["id"]
        self._num_bytes -= entry.num_bytes if response_id in self._entries else 0
        entry.num_bytes = len(msgspec.json.encode([entry.response, entry.input, entry.conversation]))
        entry.num_bytes += sum(map(len, entry.events))
        self._num_bytes += entry.num_bytes
        self._entries[response_id] = entry
        self._make_room(response_id)

    def _make_room(self, kept: str) -> None:
        for one in [name for name, entry in self._entries.items() if entry.cancel is None and name != kept]:
            if len(self._entries) <= self._most and self._num_bytes <= MAX_BYTES:
                return
            self.drop(one)
        if len(self._entries) > self._most:
            is_finished = self._entries[kept].cancel is None
            self.drop(kept)
            if is_finished:
                return
            raise HttpError(503, "Too many responses are being made in the background; come again later.")

    def get(self, response_id: str, owner: str, field: str = "response_id") -> Entry:
        """The entry of this id and owner. HttpError 404."""
        entry = self._entries.get(response_id)
        if entry is None or entry.owner != owner:
            raise HttpError(404, f"Response with id {response_id[:128]!r} not found.", field)
        return entry

    def conversation(self, response_id: str, owner: str) -> list[dict[str, Any]]:
        """What a response goes on from. HttpError 404, or 400 for one that is not finished."""
        entry = self.get(response_id, owner, "previous_response_id")
        if entry.cancel is not None:
            raise HttpError(400, f"Response with id {response_id[:128]!r} is not finished.", "previous_response_id")
        return entry.conversation

    def drop(self, response_id: str) -> None:
        """Forget an entry; one in the making is ended."""
        entry = self._entries.pop(response_id)
        self._num_bytes -= entry.num_bytes
        if entry.cancel is not None:
            entry.cancel()
