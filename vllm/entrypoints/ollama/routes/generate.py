"""Ollama's generate: a prompt is answered, in JSON lines unless `stream` is false.

The prompt goes through the chat template, with `system` before it. With `raw`, or where the model has no template, the
text goes on as it is. Without a prompt nothing is done but to say that the model is there.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.engine.front import Flow
from vllm.entrypoints.ollama.lines import LINES, ending, line, logprobs, moment
from vllm.entrypoints.ollama.routes.chat import Reply
from vllm.entrypoints.ollama.schemas import GenerateRequest
from vllm.entrypoints.ollama.translate import as_text, as_turn, served_name
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.generate import label, open_flow
from vllm.entrypoints.openai.logprobs import TokenBytes
from vllm.entrypoints.openai.params import sampling_params
from vllm.entrypoints.openai.schemas import CompletionRequest
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream, Stream, unless_gone
from vllm.entrypoints.openai.talk import Talk, begin, reply
from vllm.entrypoints.openai.usage import Usage
from vllm.inputs import normalize_prompts
from vllm.outputs import CompletionOutput

NAMES = ("/api/generate",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = GenerateRequest
KINDS = ("application/json", "application/x-ndjson")


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One answer, in lines or whole."""
    body = await read(request, GenerateRequest)
    if not body.prompt:
        head = {"model": served_name(server, body.model), "created_at": moment()}
        return JSONResponse({**head, "response": "", "done": True, "done_reason": "load"})
    if body.raw or not server.has_chat_template:
        return await _raw(request, server, body)
    chat, ignored = as_turn(server, body)
    headers = server.unknown(ignored, GenerateRequest)
    talk = await begin(server, chat, request, "ollama-")
    made = _Turn(talk, body.model)
    return await reply(request, talk, headers, made.whole, made.events, LINES)


class _Turn:
    """The answer of a model with a template."""

    def __init__(self, talk: Talk, model: str) -> None:
        self._reply = Reply(talk, model)

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        told = await self._reply.whole()
        return {**_as_response(told.pop("message")), **told}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in lines."""
        made = self._reply
        async for parts in made.talk.parts():
            pieces = []
            for part in parts:
                message, found = made.take(part), made.probabilities(part)
                if message or found:
                    pieces.append(line({**made.head(), **_as_response(message), **found, "done": False}))
            if pieces:
                yield b"".join(pieces)
        yield line({**made.head(), "response": "", **made.end()})


def _as_response(message: dict[str, Any]) -> dict[str, Any]:
    thinking = {"thinking": message["thinking"]} if "thinking" in message else {}
    return {"response": message.get("content", ""), **thinking}


async def _raw(request: Request, server: Server, body: GenerateRequest) -> Response | EventStream | None:
    """Text goes on."""
    asked, ignored = as_text(server, body)
    headers = server.unknown(ignored, GenerateRequest)
    params = sampling_params(
        asked,
        server.front.model.default_sampling,
        max_tokens=asked.max_tokens,
        logprobs=asked.logprobs,
        prompt_logprobs=None,
    )
    name = label("ollama-", None, request)
    flow = await open_flow(server, asked, normalize_prompts(asked.prompt), params, name, special=True)
    made = _Text(asked, flow, body.model, Usage(list(flow.deliveries)), server.front.model.token_bytes)
    if asked.stream:
        keep_alive_s = server.args.sse_keep_alive_interval
        return await EventStream.begun(request, Stream(made.events(), headers, flow.close, LINES, keep_alive_s))
    try:
        whole = await unless_gone(request, made.whole())
    finally:
        flow.close()
    return None if whole is None else JSONResponse(whole, headers=headers)


@dataclass(slots=True)
class _Text:
    """The answer to a raw prompt."""

    asked: CompletionRequest
    flow: Flow
    model: str
    usage: Usage
    spell: TokenBytes | None
    reason: str = "stop"

    def _take(self, c: CompletionOutput) -> dict[str, Any]:
        if c.finish_reason is not None:
            self.reason = c.finish_reason
        told: dict[str, Any] = {"model": self.model, "created_at": moment(), "response": c.text}
        if self.asked.logprobs is not None:
            told["logprobs"] = logprobs(c, self.asked.logprobs, self.spell)
        return told

    def _end(self) -> dict[str, Any]:
        usage = self.usage.as_dict()
        metrics = self.flow.deliveries[0].metrics
        return ending(self.reason, metrics, usage["prompt_tokens"], usage["completion_tokens"])

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        told: dict[str, Any] = {}
        async for batch in self.flow:
            for place, output in batch:
                for c in output.outputs:
                    self.usage.note(place, output, len(c.token_ids))
                    told |= self._take(c)
        return {**told, **self._end()}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in lines; those of one step come in one piece."""
        async for batch in self.flow:
            pieces = []
            for place, output in batch:
                for c in output.outputs:
                    self.usage.note(place, output, len(c.token_ids))
                    told = self._take(c)
                    if c.text or told.get("logprobs"):
                        pieces.append(line({**told, "done": False}))
            if pieces:
                yield b"".join(pieces)
        yield line({"model": self.model, "created_at": moment(), "response": "", **self._end()})
