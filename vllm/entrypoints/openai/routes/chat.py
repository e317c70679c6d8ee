"""Chat completions: a conversation goes on by one message: thoughts, text, tool calls.

Tools are shown to the model through its template, and what it writes is read by its format (see entrypoints/turn).
Invariant: a stream's pieces put together are the whole answer.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.logprobs import chat_logprobs, prompt_logprobs
from vllm.entrypoints.openai.schemas import ChatRequest
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import DONE, EventStream
from vllm.entrypoints.openai.talk import Part, Talk, begin, reply
from vllm.formats.events import CallArguments, CallStart, Event, ReasoningDelta, TextDelta, collect
from vllm.outputs import CompletionOutput

NAMES = ("/v1/chat/completions",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = ChatRequest
KINDS = ("application/json", "text/event-stream")
_json = msgspec.json.Encoder().encode


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One answer, whole or streamed."""
    body = await read(request, ChatRequest)
    server.check_model(body.model)
    headers = server.unknown(body.unknown_fields(), ChatRequest)
    talk = await begin(server, body, request, "chatcmpl-")
    made = Answer(body, server, talk)
    return await reply(request, talk, headers, made.whole, made.events)


@dataclass(slots=True)
class Answer:
    """One answer in the making."""

    body: ChatRequest
    server: Server
    talk: Talk

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.talk.id,
            "object": kind,
            "created": self.talk.created,
            "model": self.talk.model,
            "system_fingerprint": self.server.fingerprint,
        }

    def _logprobs(self, c: CompletionOutput) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        as_ids = self.server.as_ids(self.body)
        spell = self.server.front.model.token_bytes
        return chat_logprobs(c.token_ids, c.logprobs or (), self.body.top_logprobs or 0, as_ids, spell)

    def _role(self) -> str:
        last = self.body.messages[-1].get("role")
        return str(last) if self.body.continue_final_message and last else self.server.args.response_role

    def _rest(self, c: CompletionOutput, reason: str | None) -> dict[str, Any]:
        """The fields that a choice has in both forms."""
        rest: dict[str, Any] = {"logprobs": self._logprobs(c), "finish_reason": reason, "stop_reason": c.stop_reason}
        if self.body.return_token_ids:
            rest["token_ids"] = list(c.token_ids)
        return rest

    def _choice(self, part: Part) -> dict[str, Any]:
        """One whole choice."""
        answer = collect(part.events)
        content = answer.text if answer.text or not answer.calls else None
        message: dict[str, Any] = {"role": self._role(), "content": content, "refusal": None}
        if not self.talk.turn.is_plain:
            thoughts = (answer.reasoning or None) if self.body.include_reasoning else None
            message["reasoning"] = message["reasoning_content"] = thoughts
            if answer.calls:
                message["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in answer.calls]
        return {"index": part.output.index, "message": message, **self._rest(part.output, part.finish_reason)}

    async def whole(self) -> Mapping[str, Any]:
        """The answer in one piece."""
        parts = [part async for batch in self.talk.parts() for part in batch]
        choices = [self._choice(part) for part in parts]
        out = {**self._head("chat.completion"), "choices": choices, "usage": self.talk.usage.as_dict()}
        if parts and self.body.prompt_logprobs is not None:
            out["prompt_logprobs"] = prompt_logprobs(parts[-1].request.prompt_logprobs)
        if parts and self.body.return_token_ids:
            out["prompt_token_ids"] = parts[-1].request.prompt_token_ids
        return out

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in server-sent events: those of one step come in one piece."""
        options = self.body.stream_options
        ends_with_usage = self.server.args.enable_force_include_usage or bool(options and options.include_usage)
        with_usage = bool(options and options.continuous_usage_stats)
        usage = self.talk.usage
        head = b"data: " + _json(self._head("chat.completion.chunk"))[:-1] + b',"choices":['
        begun: set[int] = set()
        async for parts in self.talk.parts():
            pieces = []
            for part in parts:
                tail = b',"usage":' + _json(usage.as_dict()) if with_usage else b""
                if part.output.index not in begun:
                    begun.add(part.output.index)
                    delta = {"role": self._role(), "content": ""}
                    opening = {"index": part.output.index, "delta": delta, "logprobs": None, "finish_reason": None}
                    pieces.append(head + _json(opening) + b"]" + tail + b"}\n\n")
                made = self._delta(part)
                if made:
                    pieces.append(head + made + b"]" + tail + b"}\n\n")
            if pieces:
                yield b"".join(pieces)
        if ends_with_usage:
            yield head + b'],"usage":' + _json(usage.as_dict()) + b"}\n\n"
        yield DONE

    def _delta(self, part: Part) -> bytes:
        """What is new of a choice, as JSON; nothing when its reader waits for more. Nearly all are text alone."""
        c, events = part.output, part.events
        rest = c.finish_reason is not None or bool(self.body.logprobs or self.body.return_token_ids)
        if not rest and len(events) == 1 and isinstance(events[0], TextDelta):
            text = _json(events[0].text)
            return b'{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}' % (c.index, text)
        delta = _merged(events, self.body.include_reasoning)
        if not delta and not rest:
            return b""
        return _json({"index": c.index, "delta": delta, **self._rest(c, part.finish_reason)})


def _merged(events: list[Event], with_reasoning: bool) -> dict[str, Any]:
    """Events of one moment as one delta."""
    answer: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    for event in events:
        match event:
            case TextDelta(text):
                answer["content"] = answer.get("content", "") + text
            case ReasoningDelta(text) if with_reasoning:
                answer["reasoning"] = answer["reasoning_content"] = answer.get("reasoning", "") + text
            case CallStart(index, call_id, name):
                calls[index] = {"index": index, **_call(call_id, name, "")}
            case CallArguments(index, text):
                call = calls.setdefault(index, {"index": index, "function": {"arguments": ""}})
                call["function"]["arguments"] += text
    if calls:
        answer["tool_calls"] = list(calls.values())
    return answer


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
