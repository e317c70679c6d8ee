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

from vllm.engine.front import Flow
from vllm.entrypoints.openai.conversation import conversation_ids
from vllm.entrypoints.openai.errors import HttpError, refused
from vllm.entrypoints.openai.generate import label, open_flow
from vllm.entrypoints.openai.logprobs import chat_logprobs, prompt_logprobs
from vllm.entrypoints.openai.params import sampling_params
from vllm.entrypoints.openai.schemas import ChatRequest
from vllm.entrypoints.openai.state import Server, read
from vllm.entrypoints.openai.stream import DONE, EventStream, Stream, unless_gone
from vllm.entrypoints.openai.usage import Usage
from vllm.entrypoints.turn import Reader, ToolRules, Turn
from vllm.formats.events import CallArguments, CallStart, Event, ReasoningDelta, TextDelta, collect
from vllm.inputs import TokensPrompt
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

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
    rules = _rules(body, server)
    params = _params(body, server)
    variables = {} if body.reasoning_effort is None else {"reasoning_effort": body.reasoning_effort}
    text, ids = await conversation_ids(server, body, **variables)
    prompt = TokensPrompt(prompt=text, prompt_token_ids=ids)
    turn = Turn.of(server.format, rules, text, server.tokenizer)
    name = label("chatcmpl-", body.request_id, request)
    flow = await open_flow(server, body, [prompt], params, name, shown=turn.shown)
    made = _Answer(body, server, flow, name.name, turn)
    if body.stream:
        keep_alive_s = server.args.sse_keep_alive_interval
        stream = Stream(made.events(), headers, flow.close, keep_alive_s=keep_alive_s)
        return await EventStream.begun(request, stream)
    try:
        whole = await unless_gone(request, made.whole())
    finally:
        flow.close()
    return None if whole is None else Response(_json(whole), headers=headers, media_type="application/json")


def _rules(body: ChatRequest, server: Server) -> ToolRules:
    """What the request says about tools; those that may not be called are not shown to the model either."""
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    rules = ToolRules.of(tools, body.tool_choice, body.parallel_tool_calls)
    if rules.choice == "auto" and not server.args.enable_auto_tool_choice:
        raise refused("tool_choice", "'auto' is turned off (--no-enable-auto-tool-choice)")
    if rules.choice == "required":
        raise refused("tool_choice", "an answer cannot be made to be a tool call yet; 'auto' and 'none' are")
    if rules.choice == "none":
        body.tools = None
    return rules


def _params(body: ChatRequest, server: Server) -> SamplingParams:
    if body.top_logprobs and not body.logprobs:
        raise HttpError(400, "top_logprobs needs logprobs to be true.", "top_logprobs")
    if body.echo:
        raise refused("echo", "a chat answer does not repeat its conversation")
    return sampling_params(
        body,
        server.front.model.default_sampling,
        max_tokens=body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
    )


@dataclass(slots=True)
class _Answer:
    """One answer in the making."""

    body: ChatRequest
    server: Server
    flow: Flow
    id: str
    turn: Turn

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.server.now(),
            "model": self.body.model or self.server.names[0],
        }

    def _logprobs(self, c: CompletionOutput) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        as_ids = self.server.as_ids(self.body)
        return chat_logprobs(c.token_ids, c.logprobs or (), self.body.top_logprobs or 0, as_ids)

    def _role(self) -> str:
        last = self.body.messages[-1].get("role")
        return str(last) if self.body.continue_final_message and last else self.server.args.response_role

    def _rest(self, c: CompletionOutput, reason: str | None) -> dict[str, Any]:
        """The fields that a choice has in both forms."""
        rest: dict[str, Any] = {"logprobs": self._logprobs(c), "finish_reason": reason, "stop_reason": c.stop_reason}
        if self.body.return_token_ids:
            rest["token_ids"] = list(c.token_ids)
        return rest

    def _choice(self, c: CompletionOutput, usage: Usage) -> dict[str, Any]:
        """One whole choice."""
        message: dict[str, Any] = {"role": self._role(), "content": c.text, "refusal": None}
        reason = c.finish_reason
        if not self.turn.is_plain:
            reader = self.turn.reader()
            answer = collect(reader.read(c))
            usage.num_thought_tokens += reader.num_thought_tokens
            reason = reader.finish_reason(c)
            message["content"] = answer.text if answer.text or not answer.calls else None
            thoughts = (answer.reasoning or None) if self.body.include_reasoning else None
            message["reasoning"] = message["reasoning_content"] = thoughts
            if answer.calls:
                message["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in answer.calls]
        return {"index": c.index, "message": message, **self._rest(c, reason)}

    async def whole(self) -> Mapping[str, Any]:
        """The answer in one piece."""
        usage = Usage(list(self.flow.deliveries))
        choices: list[dict[str, Any]] = []
        last: RequestOutput | None = None
        async for batch in self.flow:
            for place, output in batch:
                last = output
                for c in output.outputs:
                    usage.note(place, output, len(c.token_ids))
                    choices.append(self._choice(c, usage))
        out = {**self._head("chat.completion"), "choices": choices, "usage": usage.as_dict()}
        if last is not None and self.body.prompt_logprobs is not None:
            out["prompt_logprobs"] = prompt_logprobs(last.prompt_logprobs)
        if last is not None and self.body.return_token_ids:
            out["prompt_token_ids"] = last.prompt_token_ids
        return out

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in server-sent events: those of one step come in one piece."""
        options = self.body.stream_options
        ends_with_usage = self.server.args.enable_force_include_usage or bool(options and options.include_usage)
        with_usage = bool(options and options.continuous_usage_stats)
        usage = Usage(list(self.flow.deliveries))
        head = b"data: " + _json(self._head("chat.completion.chunk"))[:-1] + b',"choices":['
        readers: dict[int, Reader | None] = {}
        async for batch in self.flow:
            pieces = []
            for place, output in batch:
                for c in output.outputs:
                    if not c.text and not c.token_ids and c.finish_reason is None:
                        continue
                    usage.note(place, output, len(c.token_ids))
                    if c.index not in readers:
                        readers[c.index] = None if self.turn.is_plain else self.turn.reader()
                        delta = {"role": self._role(), "content": ""}
                        opening = {"index": c.index, "delta": delta, "logprobs": None, "finish_reason": None}
                        tail = b',"usage":' + _json(usage.as_dict()) if with_usage else b""
                        pieces.append(head + _json(opening) + b"]" + tail + b"}\n\n")
                    reader = readers[c.index]
                    made = self._delta(c) if reader is None else self._read_delta(reader, c, usage)
                    if made:
                        tail = b',"usage":' + _json(usage.as_dict()) if with_usage else b""
                        pieces.append(head + made + b"]" + tail + b"}\n\n")
            if pieces:
                yield b"".join(pieces)
        if ends_with_usage:
            yield head + b'],"usage":' + _json(usage.as_dict()) + b"}\n\n"
        yield DONE

    def _delta(self, c: CompletionOutput) -> bytes:
        """What is new of a choice that is text and nothing else, as JSON."""
        if self.body.logprobs or c.finish_reason is not None or self.body.return_token_ids:
            delta = {"content": c.text} if c.text else {}
            return _json({"index": c.index, "delta": delta, **self._rest(c, c.finish_reason)})
        return b'{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}' % (c.index, _json(c.text))

    def _read_delta(self, reader: Reader, c: CompletionOutput, usage: Usage) -> bytes:
        """What is new of a choice, as JSON; nothing when the reader waits for more."""
        before = reader.num_thought_tokens
        events = reader.read(c)
        usage.num_thought_tokens += reader.num_thought_tokens - before
        rest = c.finish_reason is not None or bool(self.body.logprobs or self.body.return_token_ids)
        if not rest and len(events) == 1 and isinstance(events[0], TextDelta):
            text = _json(events[0].text)
            return b'{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}' % (c.index, text)
        delta = _merged(events, self.body.include_reasoning)
        if not delta and not rest:
            return b""
        return _json({"index": c.index, "delta": delta, **self._rest(c, reader.finish_reason(c))})


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
