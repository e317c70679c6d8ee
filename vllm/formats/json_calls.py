"""Calls written as JSON objects: {"name": ..., "arguments": {...}}, between marks or as the whole answer.

Arguments are handed on as they are written, so that a client sees a long one grow. What is not a call after all is
text again, marks included. Called by: the families' files.
"""

from dataclasses import dataclass, field

from vllm.formats.format import CallSink, Shape
from vllm.formats.source import Reading, Source

_NAME = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """One object, several, or a list of them, between `begin` and `end`."""

    begin: str = ""
    """"": the answer itself is calls, if it begins with one of a tool that the request has."""
    end: str = ""
    others: tuple[str, ...] = ()
    """Other ways to write `begin`."""
    shape: Shape = field(default=Shape('{"name": "{name}", "arguments": ', "}", "[", "]", ", "))

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin, *self.others) if self.begin else ()

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.begin, self.end, *self.others) if mark)

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        source = sink.source
        source.keep()
        yield from source.spaces()
        if not self.begin and (yield from source.match(*self.others)):
            yield from source.spaces()
        in_list = bool((yield from source.match("[")))
        yield from source.spaces()
        before = begin + source.kept()
        num_read = 0
        while (yield from source.peek()) == "{":
            if not (yield from _Object(sink, is_marked=bool(begin)).read("" if num_read else before)):
                return
            num_read += 1
            yield from source.spaces()
            yield from source.match(",", ";")
            yield from source.spaces()
        if not num_read:
            sink.text(before)
            return
        if in_list:
            yield from source.match("]")
            yield from source.spaces()
        while (yield from source.match("}")):  # why: one brace too many is a common slip
            yield from source.spaces()
        if self.end and not (yield from source.match(self.end)) and not in_list:
            # why: what a model writes behind a call inside the marks is text, the mark is not
            yield from source.until((self.end,), sink.text)


@dataclass(slots=True)
class _Object:
    """One object that may be a call."""

    sink: CallSink
    is_marked: bool
    name: str | None = None
    call_id: str | None = None
    early: list[str] = field(default_factory=list)
    """Arguments that came before the name."""
    is_started: bool = False

    def read(self, before: str) -> Reading[bool]:
        """Whether it was one. `before` is the text that leads to it, shown if it was none."""
        source = self.sink.source
        source.keep()
        source.skip()
        is_whole = yield from self._members(source)
        if not self.is_started and is_whole and self.name is not None and (self.is_marked or self.early):
            self._start(source)
            self.sink.arguments("".join(self.early) or "{}")
        if self.is_started:
            self.sink.end(is_whole)
            return True
        self.sink.text(before + source.kept())
        return False

    def _start(self, source: Source) -> None:
        assert self.name is not None
        source.kept()
        self.is_started = True
        self.sink.start(self.name, self.call_id)

    def _members(self, source: Source) -> Reading[bool]:
        """The keys and values up to the closing brace; False where this is no object of a call."""
        while True:
            yield from source.spaces()
            if (yield from source.match("}")):
                return True
            key = yield from source.json_string()
            yield from source.spaces()
            if key is None or not (yield from source.match(":")):
                return False
            yield from source.spaces()
            if not (yield from self._member(source, key)):
                return False
            yield from source.spaces()
            if not (yield from source.match(",")) and (yield from source.peek()) != "}":
                return False

    def _member(self, source: Source, key: str) -> Reading[bool]:
        if key in _NAME and self.name is None:
            self.name = yield from source.json_string()
            return self.name is not None and (self.is_marked or self.sink.knows(self.name))
        if key == "id" and not self.is_started and (yield from source.peek()) == '"':
            self.call_id = yield from source.json_string()
            return self.call_id is not None
        if key not in _ARGUMENTS or self.early or self.is_started:
            return (yield from source.json_value(_nowhere))
        if self.name is not None:
            self._start(source)
        take = self.sink.arguments if self.is_started else self.early.append
        if (yield from source.peek()) == '"':  # why: some write the object as a string
            text = yield from source.json_string()
            take(text or "{}")
            return text is not None
        return (yield from source.json_value(take))


def _nowhere(text: str) -> None:
    del text
