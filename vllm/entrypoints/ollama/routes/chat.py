"""Ollama's chat: a conversation goes on by one message, in JSON lines unless `stream` is false.

A tool call is told once it is whole. Without messages nothing is done but to say that the model is there.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import jiter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.ollama.lines import LINES, ending, line, logprobs, moment
from vllm.entrypoints.ollama.schemas import ChatRequest
from vllm.entrypoints.ollama.translate import as_chat, served_name
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream
from vllm.entrypoints.openai.talk import Part, Talk, begin, reply
from vllm.formats.events import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta

NAMES = ("/api/chat",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = ChatRequest
KINDS = ("application/json", "application/x-ndjson")


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One message, in lines or whole."""
    body = await read(request, ChatRequest)
    if not body.messages:
        head = {"model": served_name(server, body.model), "created_at": moment()}
        message = {"role": "assistant", "content": ""}
        return JSONResponse({**head, "message": message, "done": True, "done_reason": "load"})
    chat, ignored = as_chat(server, body)
    headers = server.unknown(ignored, ChatRequest)
    talk = await begin(server, chat, request, "ollama-")
    made = Reply(talk, body.model)
    return await reply(request, talk, headers, made.whole, made.events, LINES)


@dataclass(slots=True)
class Reply:
    """One answer in the making."""

    talk: Talk
    model: str
    """As the client said it."""
    reason: str = "stop"
    _call: dict[str, Any] = field(default_factory=dict)
    _arguments: str = ""

    def take(self, part: Part) -> dict[str, Any]:
        """What is new of the message, as its fields."""
        message: dict[str, Any] = {}
        for event in part.events:
            match event:
                case TextDelta(text):
                    message["content"] = message.get("content", "") + text
                case ReasoningDelta(text):
                    message["thinking"] = message.get("thinking", "") + text
                case CallStart(index, call_id, name):
                    self._call, self._arguments = {"id": call_id, "function": {"index": index, "name": name}}, ""
                case CallArguments(_, text):
                    self._arguments += text
                case CallEnd(_, is_whole) if is_whole:
                    message.setdefault("tool_calls", []).append(self._whole_call())
        if part.finish_reason is not None:
            self.reason = {"tool_calls": "stop"}.get(part.finish_reason, part.finish_reason)
        return message

    def _whole_call(self) -> dict[str, Any]:
        found = jiter.from_json(self._arguments.encode() or b"{}")
        self._call["function"]["arguments"] = found if isinstance(found, dict) else {}
        return self._call

    def head(self) -> dict[str, Any]:
        """What every object begins with."""
        return {"model": self.model, "created_at": moment()}

    def end(self) -> dict[str, Any]:
        """What the last object says."""
        usage = self.talk.usage.as_dict()
        metrics = self.talk.flow.deliveries[0].metrics
        return ending(self.reason, metrics, usage["prompt_tokens"], usage["completion_tokens"])

    def probabilities(self, part: Part) -> dict[str, Any]:
        """The log-probabilities of a part, if they were asked for."""
        body = self.talk.body
        if not body.logprobs:
            return {}
        return {"logprobs": logprobs(part.output, body.top_logprobs or 0, self.talk.server.front.model.token_bytes)}

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        message: dict[str, Any] = {}
        found: dict[str, Any] = {}
        async for parts in self.talk.parts():
            for part in parts:
                message |= self.take(part)
                found |= self.probabilities(part)
        return {**self.head(), "message": {"role": "assistant", "content": "", **message}, **found, **self.end()}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in lines; those of one step come in one piece."""
        async for parts in self.talk.parts():
            pieces = []
            for part in parts:
                message, found = self.take(part), self.probabilities(part)
                if message or found:
                    shown = {"role": "assistant", "content": "", **message}
                    pieces.append(line({**self.head(), "message": shown, **found, "done": False}))
            if pieces:
                yield b"".join(pieces)
        yield line({**self.head(), "message": {"role": "assistant", "content": ""}, **self.end()})
