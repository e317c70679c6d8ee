"""Calls written with a tag for each argument, and values as plain text between tags.

    <tool_call><function=add><parameter=note>text</parameter></function></tool_call>
    <minimax:tool_call><invoke name="add"><parameter name="note">text</parameter></invoke></minimax:tool_call>

A value is a string where the tool's schema says so (it is then handed on as it comes); else it is JSON if it can be
read as such, and a string if not. Called by: the families' files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.formats.format import CallSink, Shape
from vllm.formats.source import Reading

_MOST_VALUE = 1 << 20
"""Characters of a value that is looked at as JSON."""


@dataclass(frozen=True, slots=True)
class TaggedCalls:
    """Marks of a block of calls, of a call and of an argument. A tag is what stands before and behind a name."""

    begin: str
    end: str
    call: tuple[str, str]
    call_end: str
    argument: tuple[str, str]
    argument_end: str
    others: tuple[str, ...] = ()
    """Other marks that begin a block."""
    as_json: str = ""
    """What a name's tag holds behind the name when the value is no string."""
    line_breaks: bool = True
    """Values stand on lines of their own."""

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin, *self.others)

    @property
    def markers(self) -> tuple[str, ...]:
        tags = (self.begin, self.end, *self.others, self.call_end, self.argument_end)
        return tuple(mark for mark in tags if mark.startswith("<") and mark.endswith(">"))

    @property
    def shape(self) -> Shape:
        n = "\n" if self.line_breaks else ""
        kind = f"{self.as_json.removesuffix('false')}{{is_string}}" if self.as_json else ""
        return Shape(
            head=f"{self.begin}\n{self.call[0]}{{name}}{self.call[1]}\n",
            tail=f"{self.call_end}\n{self.end}",
            separator="\n",
            arguments=f"{self.argument[0]}{{name}}{kind}{self.argument[1]}{n}{{value}}{n}{self.argument_end}\n",
            raw_strings=True,
        )

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        source = sink.source
        source.keep()
        yield from source.spaces()
        if not (yield from source.match(self.call[0])):
            sink.text(begin + source.kept())
            return
        source.kept()
        while True:
            yield from self._call(sink)
            yield from source.spaces()
            if not (yield from source.match(self.call[0])):
                break
        yield from source.match(self.end)

    def _call(self, sink: CallSink) -> Reading[None]:
        """A call behind the beginning of its tag, to its end."""
        source = sink.source
        name: list[str] = []
        if not (yield from source.until((self.call[1],), name.append)):
            sink.text(self.call[0] + "".join(name))
            return
        called = "".join(name).strip()
        sink.start(called)
        properties, is_first = sink.properties(called), True
        while True:
            yield from source.spaces()
            found = yield from source.match(self.argument[0], self.call_end, self.end)
            if found == self.argument[0]:
                sink.arguments("{" if is_first else ", ")
                is_first = False
                if not (yield from self._argument(sink, properties)):
                    return
                continue
            if found:
                break
            # why: what stands between arguments means nothing; an unknown tag must not end the call
            if not (yield from source.peek()):
                return
            source.skip()
        sink.arguments("{}" if is_first else "}")
        sink.end()

    def _argument(self, sink: CallSink, properties: Mapping[str, Any]) -> Reading[bool]:
        """An argument behind the beginning of its tag; False when the text ended inside it."""
        source = sink.source
        name: list[str] = []
        if not (yield from source.until((self.argument[1],), name.append)):
            return False
        key = "".join(name).strip()
        is_json = bool(self.as_json) and self.as_json in key
        key = key.partition('"')[0] if self.as_json else key
        sink.arguments(json.dumps(key, ensure_ascii=False) + ": ")
        if self.line_breaks:
            yield from source.match("\n")
        ends = ("\n" + self.argument_end, self.argument_end) if self.line_breaks else (self.argument_end,)
        if not is_json and (self.as_json or is_string(properties.get(key))):
            return (yield from read_string(sink, ends))
        return (yield from read_value(sink, ends))


def is_string(schema: Any) -> bool:
    """Whether a schema allows strings and nothing else."""
    if not isinstance(schema, Mapping):
        return False
    kind = schema.get("type")
    values = schema.get("enum")
    return (
        kind == "string"
        or kind == ["string"]
        or (kind is None and isinstance(values, list) and bool(values) and all(isinstance(one, str) for one in values))
    )


def read_string(sink: CallSink, ends: tuple[str, ...]) -> Reading[bool]:
    """Text up to one of `ends`, handed on as a JSON string; False when none came."""
    sink.arguments('"')
    found = yield from sink.source.until(ends, lambda text: sink.arguments(json.dumps(text, ensure_ascii=False)[1:-1]))
    if found:
        sink.arguments('"')
    return bool(found)


def read_value(sink: CallSink, ends: tuple[str, ...]) -> Reading[bool]:
    """Text up to one of `ends` as a JSON value: itself if it is one, else a string; False when none came."""
    pieces: list[str] = []
    found = yield from sink.source.until(ends, pieces.append)
    text = "".join(pieces)
    if found:
        sink.arguments(as_value(text))
    return bool(found)


def as_value(text: str) -> str:
    """The JSON that a value written as plain text means."""
    bare = text.strip()
    if bare in ("True", "False", "None"):
        return {"True": "true", "False": "false", "None": "null"}[bare]
    try:
        if len(bare) <= _MOST_VALUE:
            return json.dumps(json.loads(bare, parse_constant=_refuse), ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    return json.dumps(text, ensure_ascii=False)


def _refuse(name: str) -> None:
    """NaN and Infinity are no JSON."""
    raise ValueError(name)
