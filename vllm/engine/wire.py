"""What front and engine say to each other, and how it is framed.

    front ── Add, Abort, Reset, Peek, Call ──▶ engine
    engine ── Ready, News (one a step), Refused, Glance (to a Peek), Done (to a Call), Beat, Failed ──▶ front

A frame is a 4-byte little-endian length and that many bytes of msgpack; the message carries its kind. Does not know:
sockets, processes. Invariant: only plain data crosses, so nothing read here can run code. Called by: client,
entrypoints.engine_main.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from vllm.engine.glance import Glance
from vllm.engine.stats import EngineStats
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request

_LENGTH = struct.Struct("<I")


class Add(msgspec.Struct, tag=True):
    """A request; with `emitted` (sibling index -> tokens already given) one that is resumed."""

    request: Request
    emitted: dict[int, list[int]] | None = None


class Abort(msgspec.Struct, tag=True):
    """End a request, or one sibling of it."""

    request_id: str
    index: int | None = None


class Reset(msgspec.Struct, tag=True):
    """Forget every cached prefix."""


class Call(msgspec.Struct, tag=True):
    """Do something between two steps (see entrypoints.errands); answered by a Done of the same number."""

    number: int
    method: str
    args: list[Any] = []
    words: dict[str, Any] = {}


class Peek(msgspec.Struct, tag=True):
    """Tell what goes on; answered by a Glance."""


class Ready(msgspec.Struct, tag=True):
    """The engine can serve; what the front must know of it."""

    max_model_len: int
    longest: int
    """Most tokens, prompt and output, that the KV cache can hold for one sequence; max_model_len at most."""
    vocab_size: int
    max_logprobs: int
    num_blocks: int
    block_size: int
    description: str
    """What runs and how, in one line."""
    only: tuple[str, str] = ("", "")
    """See `Intake`."""


class News(msgspec.Struct, tag=True):
    """Everything that one step brought."""

    updates: list[SequenceUpdate]
    stats: EngineStats


class Refused(msgspec.Struct, tag=True):
    """A request that the engine cannot take, and why."""

    request_id: str
    why: str


class Done(msgspec.Struct, tag=True):
    """What came of a Call: plain data, or why not."""

    number: int
    result: Any = None
    error: str = ""


class Beat(msgspec.Struct, tag=True):
    """A sign of life. `step_s` is how long the present step has taken, `cpu_s` the processor time used so far."""

    step_s: float
    cpu_s: float


class Failed(msgspec.Struct, tag=True):
    """The engine ends; its last words."""

    cause: str


Command = Add | Abort | Reset | Peek | Call
Message = Ready | News | Refused | Glance | Done | Beat | Failed
_encode = msgspec.msgpack.Encoder().encode
_commands = msgspec.msgpack.Decoder(Command)
_messages = msgspec.msgpack.Decoder(Message)


def frame(message: Command | Message) -> bytes:
    """A whole frame. TypeError for a message with something in it that is no data."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """Take some more bytes."""
        self._held += data

    def _bodies(self) -> Iterator[bytes]:
        start, held = 0, self._held
        try:
            while len(held) - start >= _LENGTH.size:
                end = start + _LENGTH.size + _LENGTH.unpack_from(held, start)[0]
                if len(held) < end:
                    return
                body = bytes(held[start + _LENGTH.size : end])
                start = end
                yield body
        finally:
            del held[:start]

    def commands(self) -> Iterator[Command | Refused]:
        """Whole commands taken so far; a request with something in it that cannot be read is refused alone."""
        for body in self._bodies():
            try:
                yield _commands.decode(body)
            except msgspec.ValidationError as error:
                yield Refused(msgspec.msgpack.decode(body)["request"]["request_id"], f"it cannot be read: {error}")

    def messages(self) -> Iterator[Message]:
        """Whole messages taken so far."""
        return map(_messages.decode, self._bodies())
