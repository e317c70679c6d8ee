"""Anthropic's Messages: a conversation goes on by one message of blocks.

Streamed with Anthropic's named events. Thinking, tools and schemas are those of every chat answer here.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.anthropic.blocks import Blocks
from vllm.entrypoints.anthropic.errors import anthropic_error
from vllm.entrypoints.anthropic.schemas import MessagesRequest
from vllm.entrypoints.anthropic.translate import as_chat
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream, Form
from vllm.entrypoints.openai.talk import Part, Talk, begin, reply

NAMES = ("/v1/messages",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = MessagesRequest
KINDS = ("application/json", "text/event-stream")
_json = msgspec.json.Encoder().encode
_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "abort": "pause_turn"}


def _event(told: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (told["type"].encode(), _json(told))


def _failed(error: HttpError) -> bytes:
    return b"event: error\ndata: " + anthropic_error(error) + b"\n\n"


_FORM = Form("text/event-stream; charset=utf-8", _failed, _event({"type": "ping"}))


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One message, whole or streamed."""
    body = await read(request, MessagesRequest)
    server.check_model(body.model)
    chat, ignored = as_chat(body)
    headers = server.unknown(ignored, MessagesRequest)
    talk = await begin(server, chat, request, "msg_")
    made = _Message(talk, set(body.stop_sequences or ()))
    return await reply(request, talk, {**headers, "request-id": talk.id}, made.whole, made.events, _FORM)


@dataclass(slots=True)
class _Message:
    """One message in the making."""

    talk: Talk
    stops: set[str]
    blocks: Blocks = field(default_factory=Blocks)
    reason: str | None = None
    stop: str | None = None

    def _take(self, part: Part) -> list[dict[str, Any]]:
        told = self.blocks.add(part.events)
        if part.finish_reason is not None:
            told += self.blocks.close()
            self.reason = _REASONS.get(part.finish_reason, "end_turn")
            if part.finish_reason == "stop" and part.output.stop_reason in self.stops:
                self.reason, self.stop = "stop_sequence", str(part.output.stop_reason)
        return told

    def _usage(self) -> dict[str, Any]:
        """Anthropic counts what was cached apart from the rest of the prompt."""
        usage = self.talk.usage.as_dict()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
        }

    def _message(self) -> dict[str, Any]:
        return {
            "id": self.talk.id,
            "type": "message",
            "role": "assistant",
            "model": self.talk.model,
            "content": self.blocks.made,
            "stop_reason": self.reason,
            "stop_sequence": self.stop,
            "usage": self._usage(),
        }

    async def whole(self) -> dict[str, Any]:
        """The message in one piece."""
        async for parts in self.talk.parts():
            for part in parts:
                self._take(part)
        return self._message()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The message in events; those of one step come in one piece."""
        is_begun = False
        async for parts in self.talk.parts():
            told: list[dict[str, Any]] = []
            if not is_begun:
                is_begun = True
                start = {**self._message(), "content": [], "stop_reason": None, "stop_sequence": None}
                told.append({"type": "message_start", "message": start})
            for part in parts:
                told += self._take(part)
            if told:
                yield b"".join(map(_event, told))
        delta = {"stop_reason": self.reason, "stop_sequence": self.stop}
        end = {"type": "message_delta", "delta": delta, "usage": self._usage()}
        yield _event(end) + _event({"type": "message_stop"})
