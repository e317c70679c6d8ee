"""The journal: what it takes to go on with every open request when the engine has died, and whom to suspect.

    open ─▶ note, note, drop ... ─▶ closed            lost (the engine died) ─▶ due (what to send to the next one)

Suspicion: a request that was with an engine that died before the request gave a token gets a strike; a token clears it.
With two strikes it is sent only when no other suspect is out; if the engine dies again before it gives a token, it
fails alone. Does not know: processes, sockets, texts. Invariants: `emitted` holds exactly the tokens that the front has
taken; a sibling that ended is not in it. Called by: client.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request

SUSPECT = 2
"""Strikes that make a suspect."""
Sink = Callable[[SequenceUpdate], None]


@dataclass(slots=True)
class Entry:
    """One open request."""

    request: Request
    sink: Sink
    emitted: dict[int, list[int]] = field(default_factory=dict)
    """Open sibling -> tokens it gave."""
    is_sent: bool = False
    has_progressed: bool = False
    """It gave a token since it was sent."""
    strikes: int = 0
    num_alone: int = 0
    """Strikes that were nobody else's too."""
    frame: bytes = b""
    """The request as it is first sent, while nothing of it has changed."""


class Journal:
    """Open requests by id, in order of arrival."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self.has_waiting = False
        """Whether some entry may not be sent yet: `due` has something to look at."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def size(self) -> tuple[int, int]:
        """(requests, prompt tokens) of all entries."""
        return len(self._entries), sum(entry.request.prompt_len for entry in self._entries.values())

    def entry(self, request_id: str) -> Entry:
        """The open entry of a request."""
        return self._entries[request_id]

    def open(self, request: Request, sink: Sink) -> Entry:
        """A new request."""
        assert request.request_id not in self._entries, "request ids are the front's own"
        entry = Entry(request, sink, {index: [] for index in range(request.sampling.n)})
        self._entries[request.request_id] = entry
        self.has_waiting = True
        return entry

    def note(self, update: SequenceUpdate) -> Entry | None:
        """Take in news of a sequence; None when it is not open any more (its caller has left)."""
        entry = self._entries.get(update.request_id)
        tokens = None if entry is None else entry.emitted.get(update.index)
        if entry is None or tokens is None:
            return None
        if update.token_ids:
            tokens += update.token_ids
            entry.has_progressed, entry.strikes, entry.num_alone = True, 0, 0
        if update.finish_reason is not None:
            self.drop(update.request_id, update.index)
        return entry

    def drop(self, request_id: str, index: int | None = None) -> None:
        """A sibling (or all of them) ended or is not wanted any more."""
        entry = self._entries.get(request_id)
        if entry is None:
            return
        if index is not None:
            entry.emitted.pop(index, None)
            entry.frame = b""
        if index is None or not entry.emitted:
            del self._entries[request_id]

    def lost(self, from_outside: bool = False) -> list[Entry]:
        """The engine died. Returns the entries that fail with it: suspects alone in the dark.

        `from_outside`: a signal did it, which is rarely a request's fault (only the kernel, out of memory, sends one
        for it), so it must have been alone twice.
        """
        blamed = [e for e in self._entries.values() if e.is_sent and not e.has_progressed]
        failed = []
        for entry in blamed:
            entry.strikes += 1
            is_alone = len(blamed) == 1
            entry.num_alone += is_alone
            if is_alone and entry.num_alone > from_outside and entry.strikes >= SUSPECT + from_outside:
                failed.append(entry)
                del self._entries[entry.request.request_id]
        self.recall()
        return failed

    @property
    def num_sent(self) -> int:
        """Entries that are with an engine."""
        return sum(entry.is_sent for entry in self._entries.values())

    def recall(self) -> None:
        """The engine was ended on purpose: everybody is to be sent again, and nobody is to blame."""
        for entry in self._entries.values():
            entry.is_sent = entry.has_progressed = False
        self.has_waiting = bool(self._entries)

    def due(self) -> list[Entry]:
        """What to send now, marked as sent. While a suspect has not cleared itself, nobody else goes."""
        waiting = [e for e in self._entries.values() if not e.is_sent]
        self.has_waiting = bool(waiting)
        if not waiting or any(e.is_sent and e.strikes >= SUSPECT for e in self._entries.values()):
            return []
        suspects = [e for e in waiting if e.strikes >= SUSPECT]
        if suspects:
            in_the_dark = any(e.is_sent and not e.has_progressed for e in self._entries.values())
            waiting = [] if in_the_dark else suspects[:1]
        else:
            self.has_waiting = False
        for entry in waiting:
            entry.is_sent = True
        return waiting

    def take_all(self) -> list[Entry]:
        """Every entry, out of the journal: nothing will go on."""
        entries = list(self._entries.values())
        self._entries.clear()
        return entries
