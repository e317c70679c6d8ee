"""Messages between the engine and its workers: a length, a word that says what it is, and msgspec bytes.

    | length of the rest, 4 bytes | kind, 1 byte | msgpack |

Knows how plans and results look as bytes; does not know processes. Called by: processes, worker_main.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from vllm.protocol.kv import CrossKV, FullKV, KVGroup, KVPlan, LatentKV, SlidingKV, StateKV
from vllm.protocol.plan import LoadPlan, WorkerPlan
from vllm.protocol.step import StepPlan, StepResult

_HEAD = struct.Struct("<IB")
_KINDS = {kind.__name__: kind for kind in (FullKV, SlidingKV, LatentKV, StateKV, CrossKV)}


class Kind(IntEnum):
    """What a frame holds."""

    START = 1
    READY = 2
    STEP = 3
    RESULT = 4
    FAILED = 5
    COLLECT = 6
    PREPARE = 7
    PREPARED = 8


@dataclass(slots=True)
class Start:
    """Everything a rank needs to build itself. `config` is the model's config.json (with overrides)."""

    rank: int
    world: str
    """Where the ranks meet: torch's init method."""
    config: dict[str, Any]
    worker: WorkerPlan
    load: LoadPlan
    kv: dict[str, Any]
    compiler_words: dict[str, Any] = field(default_factory=dict)
    """For structured output; empty without a tokenizer."""


def pack_kv(plan: KVPlan) -> dict[str, Any]:
    """A cache plan as plain data; kinds carry their names."""
    groups = [[type(g.kind).__name__, asdict(g.kind), g.layers, g.block_size] for g in plan.groups]
    return {**asdict(plan), "groups": groups}


def unpack_kv(data: dict[str, Any]) -> KVPlan:
    """The plan that `pack_kv` packed."""
    groups = tuple(KVGroup(_KINDS[name](**kind), tuple(layers), size) for name, kind, layers, size in data["groups"])
    return KVPlan(**{**data, "groups": groups})


_encode = msgspec.msgpack.Encoder().encode
_DECODERS = {
    Kind.START: msgspec.msgpack.Decoder(Start).decode,
    Kind.READY: msgspec.msgpack.Decoder(int).decode,
    Kind.STEP: msgspec.msgpack.Decoder(StepPlan).decode,
    Kind.RESULT: msgspec.msgpack.Decoder(StepResult).decode,
    Kind.FAILED: msgspec.msgpack.Decoder(str).decode,
    Kind.COLLECT: msgspec.msgpack.Decoder(None).decode,
    Kind.PREPARE: msgspec.msgpack.Decoder(None).decode,
    Kind.PREPARED: msgspec.msgpack.Decoder(tuple[int, float] | None).decode,
}


def frame(kind: Kind, message: object) -> bytes:
    """A whole frame. TypeError for a message with something in it that is no data."""
    body = _encode(message)
    return _HEAD.pack(len(body) + 1, kind) + body


def write(fd: int, data: bytes) -> None:
    """Write all of `data`. BrokenPipeError when nobody reads."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class FrameReader:
    """Reads frames from a file descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._held = bytearray()

    def feed(self) -> bool:
        """Take what is there, waiting for at least a byte. False at the end of the stream."""
        data = os.read(self.fd, 1 << 20)
        self._held += data
        return bool(data)

    def frames(self) -> Iterator[tuple[Kind, Any]]:
        """Whole frames taken so far."""
        while len(self._held) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._held)
            if len(self._held) < length + 4:
                return
            body = bytes(self._held[_HEAD.size : length + 4])
            del self._held[: length + 4]
            yield Kind(kind), _DECODERS[Kind(kind)](body)
