"""One answer, read as it comes.

    text pieces ─▶ feed ─▶ events        finish ─▶ the last events        whole text: feed everything, then finish

Does not know: where text comes from, HTTP. Invariants: the events joined do not depend on how the text was cut; text
without any mark comes out unchanged. White space around thoughts, and between text and calls, is left out.
Called by: entrypoints.
"""

import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vllm.formats.events import (
    Answer,
    CallArguments,
    CallEnd,
    CallStart,
    Event,
    ReasoningDelta,
    TextDelta,
    collect,
)
from vllm.formats.format import Format, Span, Tool
from vllm.formats.source import Reading, Source

NewId = Callable[[str, int], str]


def random_id(name: str, index: int) -> str:
    """An id that OpenAI's clients expect."""
    return f"call_{uuid.uuid4().hex[:24]}"


class Parser:
    """See the module. One for each sequence."""

    def __init__(
        self,
        format: Format,
        tools: Iterable[Tool] | None = (),
        is_thinking: bool = False,
        new_id: NewId | None = None,
    ) -> None:
        """`tools` None: calls are left as text. `is_thinking`: the prompt ends inside the reasoning span."""
        self.source = Source()
        self.format = format
        self._tools = {tool.name: tool for tool in tools or ()}
        self._reads_calls = tools is not None and format.tools is not None
        self._new_id = new_id or format.new_id or random_id
        self._events: list[Event] = []
        self._num_calls = 0
        self._in_call = False
        self._held: list[str] = []
        """White space that is shown only if something follows."""
        self._trims = False
        """White space that comes now is left out."""
        self._has_text = self._in_text = self._is_thinking = False
        self._reader: Reading[None] | None = format.main(self) if format.main is not None else self._main(is_thinking)
        next(self._reader, None)

    @property
    def num_calls(self) -> int:
        """Calls that have begun."""
        return self._num_calls

    def feed(self, text: str) -> list[Event]:
        """The events that this piece of text brings."""
        self.source.feed(text)
        return self._run()

    def finish(self) -> list[Event]:
        """The text is over: what was held back."""
        self.source.is_over = True
        self.source.feed("")
        self._run_reader()
        if self._in_call:
            self.end(is_whole=False)
        self._release()
        return self._drain()

    def _run(self) -> list[Event]:
        self._run_reader()
        return self._drain()

    def _run_reader(self) -> None:
        if self._reader is not None:
            try:
                next(self._reader)
            except StopIteration:
                self._reader = None

    def _drain(self) -> list[Event]:
        events, self._events = self._events, []
        return _joined(events) if len(events) > 1 else events

    # -- the answer ----------------------------------------------------------------------------------------------

    def _main(self, is_thinking: bool) -> Reading[None]:
        """Thoughts first, then text with calls in it."""
        span, source = self.format.reasoning, self.source
        calls = self.format.tools if self._reads_calls else None
        if span is not None and is_thinking:
            yield from self._think(span)
        while True:
            space = yield from source.spaces()
            if span is not None and (yield from source.match(span.begin, *span.begins)):
                yield from self._think(span)
                continue
            self.text(space)
            break
        if calls is not None and not calls.begins:
            yield from self._calls("")
        while found := (yield from source.until(calls.begins if calls is not None else (), self.text)):
            assert calls is not None
            yield from self._calls(found)
            if span is not None and not self._has_text:
                # why: families that think between calls do so before any text
                space = yield from source.spaces()
                if (yield from source.match(span.begin, *span.begins)):
                    yield from self._think(span)

    def _calls(self, begin: str) -> Reading[None]:
        assert self.format.tools is not None
        yield from self.format.tools.read(self, begin)
        if self._in_call:
            self.end(is_whole=False)

    def _think(self, span: Span) -> Reading[None]:
        """From behind the span's begin to behind its end. A call ends it too."""
        calls = self.format.tools if self._reads_calls else None
        begins = calls.begins if calls is not None else ()
        self._held, self._trims, self._is_thinking = [], True, True
        found = yield from self.source.until((span.end, *span.ends, *begins), self.think)
        if not found:
            return
        self._held, self._trims, self._is_thinking = [], True, False
        if found in begins:
            yield from self._calls(found)

    # -- what readers say ----------------------------------------------------------------------------------------

    def think(self, text: str) -> None:
        """A piece of reasoning."""
        if self._in_text:
            self.part()
            self._in_text = False
        shown = self._spaced(text)
        if shown:
            self._events.append(ReasoningDelta(shown))

    def text(self, text: str) -> None:
        """A piece of text."""
        if self._in_call and text.strip():
            self.end(is_whole=False)
        shown = self._spaced(text)
        if shown:
            if self._has_text and not self._in_text:
                shown = "\n" + shown  # why: what stood on both sides of a call is not one word
            self._in_text = self._has_text = True
            self._events.append(TextDelta(shown))

    def start(self, name: str, call_id: str | None = None) -> None:
        """A call begins."""
        if self._in_call:
            self.end()
        index = self._num_calls
        self._num_calls, self._in_call = index + 1, True
        self._held, self._trims, self._in_text = [], True, False
        self._events.append(CallStart(index, call_id or self._new_id(name, index), name))

    def arguments(self, text: str) -> None:
        """A piece of the JSON text of the call's arguments."""
        if text:
            self._events.append(CallArguments(self._num_calls - 1, text))

    def end(self, is_whole: bool = True) -> None:
        """The call is over. More than once does nothing."""
        if self._in_call:
            self._in_call = False
            self._events.append(CallEnd(self._num_calls - 1, is_whole))

    @property
    def reads_calls(self) -> bool:
        """Calls are read, and not left as text."""
        return self._reads_calls

    def part(self) -> None:
        """What comes next is apart from what came: white space between them is left out."""
        self._held, self._trims = [], True

    def knows(self, name: str) -> bool:
        """Whether the request has a tool of this name."""
        return name in self._tools

    def properties(self, name: str) -> Mapping[str, Any]:
        """The parameters of a tool, as far as the request says."""
        tool = self._tools.get(name)
        found = tool.parameters.get("properties") if tool is not None else None
        return found if isinstance(found, Mapping) else {}

    def _spaced(self, text: str) -> str:
        """What can be shown of `text`: white space waits for what follows it."""
        if self._trims:
            text = text.lstrip()
            if not text:
                return ""
            self._trims = False
        if not (self._reads_calls or self.format.reasoning):
            return text
        shown = text.rstrip()
        if shown:
            held, self._held = self._held, []
            held.append(shown)
            shown, text = "".join(held), text[len(shown) :]
        if text:
            self._held.append(text)  # why: joined only once, however many pieces of white space come
        return shown

    def _release(self) -> None:
        """The end: white space behind the text belongs to it, behind thoughts and calls to nothing."""
        if self._held and not self._trims and not self._is_thinking:
            self._events.append(TextDelta("".join(self._held)))
        self._held = []


def _place(event: Event) -> tuple[type, int]:
    """What events share that can be one."""
    return type(event), event.index if isinstance(event, CallArguments) else 0


def _joined(events: list[Event]) -> list[Event]:
    """The same with neighbouring pieces of one kind in one."""
    out: list[Event] = []
    for (kind, index), group in itertools.groupby(events, _place):
        same = list(group)
        texts = [event.text for event in same if isinstance(event, TextDelta | ReasoningDelta | CallArguments)]
        if len(texts) < 2:
            out += same
        elif kind is CallArguments:
            out.append(CallArguments(index, "".join(texts)))
        else:
            out.append(TextDelta("".join(texts)) if kind is TextDelta else ReasoningDelta("".join(texts)))
    return out


def parse(
    format: Format,
    text: str,
    tools: Iterable[Tool] | None = (),
    is_thinking: bool = False,
    new_id: NewId | None = None,
) -> Answer:
    """A whole answer: feed everything, then finish."""
    parser = Parser(format, tools, is_thinking, new_id)
    return collect([*parser.feed(text), *parser.finish()])
