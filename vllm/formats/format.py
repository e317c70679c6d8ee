"""A format: how one family of chat models writes its thoughts and its tool calls. Data, with a reader for the calls.

    FORMATS = {"hermes": Format(tools=JsonCalls("<tool_call>", "</tool_call>")), ...}     one file per family

Does not know: requests, tokens. Called by: parser, choose, each family's file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vllm.formats.source import Reading, Source


@dataclass(frozen=True, slots=True)
class Span:
    """Text between two marks, at the beginning of an answer."""

    begin: str
    end: str
    is_open: bool = False
    """The answer is inside from its first character, unless the prompt has closed the span."""
    begins: tuple[str, ...] = ()
    """Other ways to write `begin`."""
    ends: tuple[str, ...] = ()
    """Other ways to write `end`."""


class CallSink(Protocol):
    """What a reader of calls writes to."""

    source: Source

    def start(self, name: str, call_id: str | None = None) -> None:
        """A call begins."""
        ...

    def arguments(self, text: str) -> None:
        """A piece of the JSON text of its arguments."""
        ...

    def end(self, is_whole: bool = True) -> None:
        """The call is over."""
        ...

    def text(self, text: str) -> None:
        """What looked like a call was text."""
        ...

    def knows(self, name: str) -> bool:
        """Whether the request has a tool of this name."""
        ...

    def properties(self, name: str) -> Mapping[str, Any]:
        """The parameters of a tool (name -> JSON schema), as far as the request says."""
        ...


class Calls(Protocol):
    """How tool calls are written."""

    @property
    def begins(self) -> tuple[str, ...]:
        """Marks that begin a call or a list of calls. () when calls are the whole answer or none of it."""
        ...

    @property
    def markers(self) -> tuple[str, ...]:
        """Every special token that the reader must see."""
        ...

    @property
    def shape(self) -> "Shape":
        """How a model is made to write calls."""
        ...

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        """Read what follows `begin` ("" when the answer itself is read from its start)."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """How calls are put together, for a grammar that makes a model write them.

    `begin` (`head` arguments `tail`) `separator` (`head` ...) `end`, where {name} in `head` is the tool's name.
    """

    head: str
    tail: str
    begin: str = ""
    end: str = ""
    separator: str = ""
    arguments: str = "json"
    """json: an object; or how each argument is written, with {name} for its name and {value} for its value."""
    between: str = ""
    """What stands between arguments that are no JSON object."""
    raw_strings: bool = False
    """Strings among them stand as they are, without quotes."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """Reasoning and tool syntax; either may be absent."""

    reasoning: Span | None = None
    tools: Calls | None = None
    new_id: Callable[[str, int], str] | None = None
    """(name, index) -> id of a call, where the family wants ids of its own form."""
    signs: tuple[str, ...] = ()
    """Literals that chat templates of this family hold, all of them."""
    main: Callable[[Any], Reading[None]] | None = None
    """A reader of whole answers, for families whose answers are not a span and then text with calls in it."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts of tokens that must not be hidden from the parser, special or not."""
        span = self.reasoning
        spans = () if span is None else (span.begin, span.end, *span.begins, *span.ends)
        return (*spans, *(() if self.tools is None else self.tools.markers))
