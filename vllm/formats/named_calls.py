"""Calls written as a name, a mark, and the arguments as a JSON object: DeepSeek, Kimi, Mistral.

    <|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{...}<|tool_call_end|>...

Called by: the families' files.
"""

import re
from dataclasses import dataclass

from vllm.formats.format import CallSink, Shape
from vllm.formats.json_calls import JsonCalls
from vllm.formats.source import Reading


@dataclass(frozen=True, slots=True)
class NamedCalls:
    """A block's marks ("" where there are none), a call's, and what stands between its name and its arguments."""

    begin: str
    end: str
    call: str
    """What stands before a name; "" when the block's begin does."""
    name_end: tuple[str, ...]
    call_end: tuple[str, ...]
    shape: Shape
    id_mark: str = ""
    """Stands between a name and the call's id."""
    has_id: bool = False
    """The name is written functions.NAME:INDEX, and that is the id."""
    others: tuple[str, ...] = ()
    """Other ways to write `begin`."""
    or_json: JsonCalls | None = None
    """How the family writes calls at other times, as a JSON list behind `begin`."""

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin, *self.others)

    @property
    def markers(self) -> tuple[str, ...]:
        marks = (self.begin, self.end, self.call, *self.others, *self.name_end, *self.call_end, self.id_mark)
        return tuple(dict.fromkeys(mark.strip("`json\n ") for mark in marks if mark.strip("`json\n ")))

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        source = sink.source
        source.keep()
        yield from source.spaces()
        if self.or_json is not None and (yield from source.peek()) in ("[", "{"):
            yield from self.or_json.read(sink, begin + source.kept())
            return
        num_read = 0
        while not self.call or (yield from source.match(self.call)):
            source.kept()
            if not (yield from self._call(sink, self.call or begin)):
                return
            num_read += 1
            yield from source.spaces()
            if not self.call:
                return
        if not num_read:
            sink.text(begin + source.kept())
            return
        yield from source.match(self.end)

    def _call(self, sink: CallSink, before: str) -> Reading[bool]:
        """A call behind what begins it; False when it was none."""
        source = sink.source
        written: list[str] = []
        marks = (*self.name_end, *((self.id_mark,) if self.id_mark else ()))
        found = yield from source.until(marks, written.append)
        name, call_id = "".join(written).strip(), None
        if found and found == self.id_mark:
            given: list[str] = []
            found = yield from source.until(self.name_end, given.append)
            call_id = "".join(given).strip()
        if not found or not name:
            sink.text(before + "".join(written) + found)
            return False
        if self.has_id:
            call_id, name = name, _bare(name)
        sink.start(name, call_id)
        yield from source.spaces()
        if (yield from source.peek()) in ("{", "["):
            is_whole = yield from source.json_value(sink.arguments)
        else:
            sink.arguments("{}")
            is_whole = True
        if is_whole:
            sink.end()
        yield from source.spaces()
        if is_whole and self.call_end:
            yield from source.match(*self.call_end)
        return is_whole


_ID = re.compile(r"(?:functions\.)?(.+?)(?::\d+)?")


def _bare(name: str) -> str:
    """The tool's name in an id such as functions.add:0."""
    found = _ID.fullmatch(name)
    return name if found is None else found[1]
