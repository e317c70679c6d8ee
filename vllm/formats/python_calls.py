"""Calls written as Python: [get_weather(city="Paris", days=3), now()].

Values are read as they come and written as JSON, with no evaluation of anything. Called by: the families' files.
"""

import json
import re
from dataclasses import dataclass

from vllm.formats.format import CallSink, Shape
from vllm.formats.source import Reading, Sink, Source

_NAME = re.compile(r"[\w.\-]")
_MAX_DEPTH = 64
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "a": "\a", "v": "\v", "\n": ""}


@dataclass(frozen=True, slots=True)
class PythonCalls:
    """A list of calls between `begin` and `end`, or one call a line (`is_list` False).

    Without `begin` the answer itself is calls, if it begins with one of a tool that the request has.
    """

    begin: str = ""
    end: str = ""
    is_list: bool = True
    others: tuple[str, ...] = ()

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin, *self.others) if self.begin else ()

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.begin, self.end, *self.others) if mark)

    @property
    def shape(self) -> Shape:
        opening, closing = ("[", "]") if self.is_list else ("", "")
        separator = ", " if self.is_list else "\n"
        begin, end = self.begin + opening, closing + self.end
        return Shape("{name}(", ")", begin, end, separator, "{name}={value}", between=", ")

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        source = sink.source
        source.keep()
        yield from source.spaces()
        if not self.begin and self.others:
            yield from source.match(*self.others)
            yield from source.spaces()
        opened = bool((yield from source.match("[")))
        if not opened and self.is_list:
            sink.text(begin + source.kept())
            return
        num_read = 0
        while True:
            yield from source.spaces()
            if num_read:
                source.keep()
            if not (yield from self._call(sink, "" if num_read else begin, is_marked=bool(begin))):
                break
            num_read += 1
            yield from source.spaces()
            yield from source.match(",", ";")
        yield from source.spaces()
        yield from source.match("]")
        yield from source.spaces()
        if self.end:
            yield from source.match(self.end)

    def _call(self, sink: CallSink, before: str, is_marked: bool) -> Reading[bool]:
        """One call; False when there is none, or when the text ended in it."""
        source = sink.source
        name = yield from _word(source)
        yield from source.spaces()
        if not name or not (is_marked or sink.knows(name)) or not (yield from source.match("(")):
            sink.text(before + source.kept())
            return False
        source.kept()
        sink.start(name)
        is_first = True
        while True:
            yield from source.spaces()
            if (yield from source.match(")")):
                sink.arguments("{}" if is_first else "}")
                sink.end()
                return True
            key = yield from _word(source)
            yield from source.spaces()
            if not key or not (yield from source.match("=", ":")):
                return False
            sink.arguments(("{" if is_first else ", ") + json.dumps(key, ensure_ascii=False) + ": ")
            is_first = False
            if not (yield from value(source, sink.arguments, 0)):
                return False
            yield from source.spaces()
            yield from source.match(",")


def _word(source: Source) -> Reading[str]:
    word = ""
    while _NAME.match((yield from source.peek())) and len(word) < 256:
        word += source.skip()
    return word


def value(source: Source, out: Sink, depth: int) -> Reading[bool]:
    """A Python literal, written to `out` as JSON; False where there is none, or the text ended in it."""
    yield from source.spaces()
    first = yield from source.peek()
    if first in ("'", '"') and first:
        return (yield from _string(source, out))
    if first in ("[", "(", "{") and first and depth < _MAX_DEPTH:
        return (yield from _items(source, out, depth))
    word = ""
    while ((c := (yield from source.peek())) and (c.isalnum() or c in "+-._")) and len(word) < 400:
        word += source.skip()
    made = _WORDS.get(word) or _number(word)
    if made is None:
        return False
    out(made)
    return bool((yield from source.peek()))


def _number(word: str) -> str | None:
    """A number of Python as one of JSON."""
    text = word.replace("_", "").removeprefix("+")
    try:
        return json.dumps(json.loads(text)) if "N" not in text and "I" not in text else None
    except ValueError:
        pass
    try:
        return json.dumps(float(text)) if any(c.isdigit() for c in text) and len(text) < 40 else None
    except ValueError:
        return None


def _items(source: Source, out: Sink, depth: int) -> Reading[bool]:
    """A list, a tuple or a dict."""
    opening = source.skip()
    is_dict, closing = opening == "{", {"[": "]", "(": ")", "{": "}"}[opening]
    out("{" if is_dict else "[")
    is_first = True
    while True:
        yield from source.spaces()
        if (yield from source.match(closing)):
            out("}" if is_dict else "]")
            return True
        if not is_first:
            out(", ")
        is_first = False
        if is_dict:
            if (yield from source.peek()) not in ("'", '"') or not (yield from _string(source, out)):
                return False
            yield from source.spaces()
            if not (yield from source.match(":")):
                return False
            out(": ")
        if not (yield from value(source, out, depth + 1)):
            return False
        yield from source.spaces()
        if not (yield from source.match(",")) and (yield from source.peek()) != closing:
            return False


def _string(source: Source, out: Sink) -> Reading[bool]:
    """A string in quotes of any of Python's four kinds."""
    quote = yield from source.match("'''", '"""', "'", '"')
    out('"')
    if not quote:
        return False

    def say(text: str) -> None:
        out(json.dumps(text, ensure_ascii=False)[1:-1])

    while True:
        found = yield from source.until((quote, "\\"), say)
        if found == quote:
            out('"')
            return True
        if not found or not (yield from _escape(source, say)):
            return False


def _escape(source: Source, say: Sink) -> Reading[bool]:
    """What follows a backslash."""
    char = yield from source.peek()
    if not char:
        return False
    source.skip()
    length = {"x": 2, "u": 4, "U": 8}.get(char)
    if length is None:
        say(_ESCAPES.get(char, char if char in "'\"\\" else "\\" + char))
        return True
    digits = ""
    while len(digits) < length and (c := (yield from source.peek())) and c in "0123456789abcdefABCDEF":
        digits += source.skip()
    code = int(digits, 16) if len(digits) == length else -1
    # why: a lone surrogate cannot be sent; a pair of them is one character
    say(chr(code) if 0 <= code < 0x110000 and not 0xD800 <= code < 0xE000 else "\\" + char + digits)
    return bool((yield from source.peek()))
