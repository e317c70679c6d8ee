"""What an answer is made of, as it comes: the interface between formats and every API.

    feed(piece) ─▶ [ReasoningDelta ..., TextDelta ..., CallStart, CallArguments ..., CallEnd, ...]

Rules: deltas are never empty; a call is CallStart, any number of CallArguments, then exactly one CallEnd, and no other
call or text comes between; the arguments of a call joined are JSON text (an object, if the model wrote one). Calls are
numbered 0, 1, 2 ... in order. `collect` joins events into the whole answer, so streamed and whole cannot differ.
Does not know: HTTP, OpenAI's or anybody's JSON. Called by: entrypoints.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """The model begins to call a tool."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is over; `is_whole` is False when the text ended inside it, so that its arguments are cut short."""

    index: int
    is_whole: bool = True


Event = TextDelta | ReasoningDelta | CallStart | CallArguments | CallEnd


@dataclass(slots=True)
class Call:
    """A tool call. `arguments` is JSON text."""

    id: str
    name: str
    arguments: str = ""
    is_whole: bool = False


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case TextDelta(text):
                self.text += text
            case ReasoningDelta(text):
                self.reasoning += text
            case CallStart(_, call_id, name):
                self.calls.append(Call(call_id, name))
            case CallArguments(index, text):
                self.calls[index].arguments += text
            case CallEnd(index, is_whole):
                self.calls[index].is_whole = is_whole


def collect(events: Iterable[Event]) -> Answer:
    """The answer that these events make."""
    answer = Answer()
    for event in events:
        answer.add(event)
    return answer
