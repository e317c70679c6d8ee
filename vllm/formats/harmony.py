"""gpt-oss (Harmony): an answer is messages, each on a channel: analysis is thought, final is text, a message to a
function is a call.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json
    <|message|>{...}<|call|>
"""

import re
from dataclasses import dataclass

from vllm.formats.format import CallSink, Format, Shape
from vllm.formats.parser import Parser
from vllm.formats.source import Reading

NAMES = ("openai", "openai_gptoss")
_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", _START)
_ON = re.compile(r"<\|channel\|>\s*(\w+)")
_TO = re.compile(r"\bto=(?:functions\.)?([\w.\-]+)")


@dataclass(frozen=True, slots=True)
class HarmonyCalls:
    """Calls are messages; `read_answer` reads them all."""

    begins: tuple[str, ...] = ()
    markers: tuple[str, ...] = (_CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)

    @property
    def shape(self) -> Shape:
        head = f"{_CHANNEL}commentary to=functions.{{name}} {_CONSTRAIN}json{_MESSAGE}"
        return Shape(head, "<|call|>", separator=f"{_START}assistant")

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        yield from ()


def read_answer(parser: Parser) -> Reading[None]:
    """All messages of an answer; what stands outside them is text."""
    source = parser.source
    mark = yield from source.until((_START, _CHANNEL), parser.text)
    while mark:
        head = [mark]
        if not (yield from source.until((_MESSAGE,), head.append)):
            return
        header = "".join(head)
        channel, recipient = _ON.search(header), _TO.search(header)
        if recipient is not None and parser.reads_calls:
            mark = yield from _call(parser, recipient[1])
        elif channel is not None and channel[1] == "analysis":
            mark = yield from source.until(_ENDS, parser.think)
            parser.part()
        else:
            mark = yield from source.until(_ENDS, parser.text)
        if mark and mark != _START:
            mark = yield from source.until((_START, _CHANNEL), parser.text)


def _call(parser: Parser, name: str) -> Reading[str]:
    """A call behind its header; returns the mark that ended it."""
    source = parser.source
    parser.start(name)
    yield from source.spaces()
    is_whole = True
    if (yield from source.peek()) in ("{", "["):
        is_whole = yield from source.json_value(parser.arguments)
    else:
        parser.arguments("{}")
    if is_whole:
        parser.end()
    return (yield from source.until(_ENDS, _nowhere))


def _nowhere(text: str) -> None:
    del text


FORMATS = {
    "openai": Format(tools=HarmonyCalls(), main=read_answer, signs=(_CHANNEL, _MESSAGE)),
    "openai_gptoss": Format(tools=HarmonyCalls(), main=read_answer),
}
