"""Text that comes in pieces, read by generators that pause where they need more.

    found = yield from source.until(("<tool_call>",), sink)

Does not know: families, events. Invariants: what a reader does depends on the text and never on how it was cut; what
is held back is no longer than the longest literal that is looked for; each character is looked at a bounded number of
times. Called by: parser and the readers of calls.
"""

import json
import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
"""A reader: it yields when it needs more text, and returns what it found."""
Sink = Callable[[str], None]
_STRUCTURE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"[\s,:}\]]")
_SPACES = re.compile(r"\s*")


@lru_cache(maxsize=256)
def _any_of(literals: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(literals, key=len, reverse=True))))


class Source:
    """The text of one answer."""

    __slots__ = ("_at", "_keeps", "_kept", "_text", "is_over")

    def __init__(self) -> None:
        self._text, self._at = "", 0
        self._kept: list[str] = []
        self._keeps = False
        self.is_over = False
        """No more text will come."""

    def feed(self, text: str) -> None:
        """More text."""
        self._text = self._text[self._at :] + text if self._at < len(self._text) else text
        self._at = 0

    def keep(self) -> None:
        """From here on remember what is read, until `kept` or the next `keep`."""
        self._kept, self._keeps = [], True

    def kept(self) -> str:
        """What was read since `keep`; it is remembered no longer."""
        text = "".join(self._kept)
        self._kept, self._keeps = [], False
        return text

    def _take(self, end: int) -> str:
        piece = self._text[self._at : end]
        self._at = end
        if self._keeps:
            self._kept.append(piece)
        return piece

    def peek(self) -> Reading[str]:
        """The next character, not read; "" at the end."""
        while self._at >= len(self._text) and not self.is_over:
            yield
        return self._text[self._at : self._at + 1]

    def skip(self, count: int = 1) -> str:
        """Read characters that `peek` or `match` has seen."""
        return self._take(self._at + count)

    def spaces(self) -> Reading[str]:
        """Read white space."""
        read: list[str] = []
        while True:
            found = _SPACES.match(self._text, self._at)
            assert found is not None
            read.append(self._take(found.end()))
            if self._at < len(self._text) or self.is_over:
                return "".join(read)
            yield

    def match(self, *literals: str) -> Reading[str]:
        """Read the longest of these literals that comes next; "" when none does."""
        while True:
            rest = len(self._text) - self._at
            found = max((x for x in literals if self._text.startswith(x, self._at)), key=len, default="")
            waits = not self.is_over and any(
                len(x) > max(rest, len(found)) and x.startswith(self._text[self._at :]) for x in literals
            )
            if not waits:
                self._take(self._at + len(found))
                return found
            yield

    def until(self, literals: Sequence[str], sink: Sink) -> Reading[str]:
        """Hand the text before the first of these literals to `sink`; the literal, read, or "" at the end."""
        while True:
            place, found = self._first(literals)
            held = len(self._text) if self.is_over else self._partial(literals)
            if found and place < held:
                if self._at < place:
                    sink(self._take(place))
                self._take(place + len(found))
                return found
            if self._at < held:
                sink(self._take(held))
            if self.is_over and self._at >= len(self._text):
                return ""
            yield

    def _first(self, literals: Sequence[str]) -> tuple[int, str]:
        """(place, literal) of the leftmost one, the longest of those there."""
        # why: one search for all, for a search of each would pass over the whole text again at every literal found
        found = _any_of(tuple(literals)).search(self._text, self._at) if literals else None
        return (len(self._text), "") if found is None else (found.start(), found[0])

    def _partial(self, literals: Sequence[str]) -> int:
        """Where the text might end inside a literal; the end of the text if nowhere."""
        end = len(self._text)
        best = end
        for literal in literals:
            place = self._text.find(literal[0], max(self._at, end - len(literal) + 1))
            while 0 <= place < best:
                if literal.startswith(self._text[place:]):
                    best = place
                place = self._text.find(literal[0], place + 1)
        return best

    def json_value(self, sink: Sink) -> Reading[bool]:
        """Hand one JSON value to `sink` as it is written; False when the text ended inside it."""
        first = yield from self.peek()
        if first not in ('"', "{", "["):
            return (yield from self._scalar(sink))
        depth, in_string = 0, False
        while True:
            at = self._at
            while True:
                found = (_IN_STRING if in_string else _STRUCTURE).search(self._text, at)
                if found is None:
                    at = len(self._text)
                    break
                at, mark = found.end(), found[0]
                if mark == "\\":
                    if at >= len(self._text):
                        at -= 1  # why: the character behind it belongs to it
                        break
                    at += 1
                    continue
                if mark == '"':
                    in_string = not in_string
                else:
                    depth += 1 if mark in "{[" else -1
                if not in_string and depth <= 0:
                    sink(self._take(at))
                    return True
            if self.is_over:
                at = len(self._text)
            if at > self._at:
                sink(self._take(at))
            if self.is_over:
                return False
            yield

    def _scalar(self, sink: Sink) -> Reading[bool]:
        """A number, true, false or null: all up to what can follow a value."""
        while True:
            found = _SCALAR_END.search(self._text, self._at)
            end = found.start() if found is not None else len(self._text)
            if end > self._at:
                sink(self._take(end))
            if found is not None:
                return True
            if self.is_over:
                return False
            yield

    def json_string(self) -> Reading[str | None]:
        """A JSON string, decoded; None when there is none, or none that can be decoded."""
        if (yield from self.peek()) != '"':
            return None
        pieces: list[str] = []
        if not (yield from self.json_value(pieces.append)):
            return None
        try:
            value = json.loads("".join(pieces), strict=False)
        except ValueError:
            return None
        return str(value)
