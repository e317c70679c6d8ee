"""Events of an answer as Anthropic's content blocks, streamed and whole by the same steps.

    ReasoningDelta ─▶ thinking block     TextDelta ─▶ text block     CallStart .. CallEnd ─▶ tool_use block

Does not know: HTTP. Invariant: blocks are opened and closed one after the other; the deltas of a block put together are
the block. Called by: routes/messages.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import jiter

from vllm.formats.events import CallArguments, CallEnd, CallStart, Event, ReasoningDelta, TextDelta


class Blocks:
    """The blocks of one message."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._arguments = ""

    def add(self, events: Iterable[Event]) -> list[dict[str, Any]]:
        """Take events in; returns what a stream says of them."""
        told: list[dict[str, Any]] = []
        for event in events:
            match event:
                case TextDelta(text):
                    self._write(told, {"type": "text", "text": ""}, "text_delta", "text", text)
                case ReasoningDelta(text):
                    empty = {"type": "thinking", "thinking": "", "signature": ""}
                    self._write(told, empty, "thinking_delta", "thinking", text)
                case CallStart(_, call_id, name):
                    self._begin(told, {"type": "tool_use", "id": call_id, "name": name, "input": {}})
                case CallArguments(_, text):
                    self._arguments += text
                    self._tell(told, {"type": "input_json_delta", "partial_json": text})
                case CallEnd():
                    told += self.close()
        return told

    def close(self) -> list[dict[str, Any]]:
        """End the open block."""
        block, self._open = self._open, None
        if block is None:
            return []
        if block["type"] == "tool_use":
            # why: arguments that were cut short are given as far as they go, as Anthropic's own client reads a stream
            found = None
            with contextlib.suppress(ValueError):
                found = jiter.from_json(self._arguments.encode() or b"{}", partial_mode=True)
            block["input"], self._arguments = found if isinstance(found, dict) else {}, ""
        return [{"type": "content_block_stop", "index": len(self.made) - 1}]

    def _begin(self, told: list[dict[str, Any]], block: dict[str, Any]) -> None:
        told += self.close()
        self._open = block
        self.made.append(block)
        told.append({"type": "content_block_start", "index": len(self.made) - 1, "content_block": dict(block)})

    def _write(self, told: list[dict[str, Any]], empty: dict[str, Any], kind: str, key: str, text: str) -> None:
        if self._open is None or self._open["type"] != empty["type"]:
            self._begin(told, empty)
        assert self._open is not None
        self._open[key] += text
        self._tell(told, {"type": kind, key: text})

    def _tell(self, told: list[dict[str, Any]], delta: dict[str, Any]) -> None:
        told.append({"type": "content_block_delta", "index": len(self.made) - 1, "delta": delta})
