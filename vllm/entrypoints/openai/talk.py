"""A chat answer in the making, whichever API asked for it.

    OpenAI chat ──────────────────────────────┐
    Responses, Anthropic, Ollama ─ translate ─┴▶ ChatRequest ─▶ begin ─▶ Talk ─▶ Parts: events, tokens, why it ended

So a field means the same in every API, and tools and schemas work in all of them. Does not know: any API's answers.
Invariant: a Talk is closed in any case. Called by: the chat routes of every API.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.engine.front import Flow
from vllm.entrypoints.constraint import able_to_call, constrain
from vllm.entrypoints.openai.conversation import conversation_ids, may_think
from vllm.entrypoints.openai.errors import HttpError, refused
from vllm.entrypoints.openai.generate import label, open_flow
from vllm.entrypoints.openai.params import sampling_params
from vllm.entrypoints.openai.schemas import ChatRequest
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import SSE, EventStream, Form, Stream, unless_gone
from vllm.entrypoints.openai.usage import Usage
from vllm.entrypoints.turn import Reader, ToolRules, Turn
from vllm.formats.events import Event, TextDelta
from vllm.inputs import TokensPrompt
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

_json = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Part:
    """What is new of one choice."""

    output: CompletionOutput
    events: list[Event]
    finish_reason: str | None
    """stop, length, tool_calls, abort; None while it goes on."""
    request: RequestOutput


@dataclass(slots=True)
class Talk:
    """One request for a chat answer."""

    server: Server
    body: ChatRequest
    flow: Flow
    id: str
    turn: Turn
    usage: Usage
    created: int
    _readers: dict[int, Reader] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model's name as the client knows it."""
        return self.body.model or self.server.names[0]

    def close(self) -> None:
        """Give up what has not ended."""
        self.flow.close()

    async def parts(self) -> AsyncIterator[list[Part]]:
        """What comes with each step; the whole answer at once when it is not streamed."""
        async for batch in self.flow:
            parts = []
            for place, output in batch:
                for c in output.outputs:
                    if c.text or c.token_ids or c.finish_reason is not None:
                        self.usage.note(place, output, len(c.token_ids))
                        parts.append(self._part(output, c))
            yield parts

    def _part(self, output: RequestOutput, c: CompletionOutput) -> Part:
        if self.turn.is_plain:
            return Part(c, [TextDelta(c.text)] if c.text else [], c.finish_reason, output)
        reader = self._readers.get(c.index)
        if reader is None:
            reader = self._readers[c.index] = self.turn.reader()
        before = reader.num_thought_tokens
        events = reader.read(c)
        self.usage.num_thought_tokens += reader.num_thought_tokens - before
        return Part(c, events, reader.finish_reason(c), output)


async def begin(server: Server, body: ChatRequest, request: Request, prefix: str) -> Talk:
    """Queue the conversation. Raises ValueError or HttpError for what is wrong with it."""
    rules = _rules(body, server)
    params = _params(body, server)
    variables = _variables(body)
    text, ids = await conversation_ids(server, body, **variables)
    turn, thinking = able_to_call(Turn.of(server.format, rules, text, server.tokenizer)), None
    params.structured_outputs = constrain(turn, params.structured_outputs, server.structured.literal)
    if params.structured_outputs is not None:
        begins = not turn.is_thinking and await may_think(server, body, text, **variables)
        thinking = turn.thinking(begins, server.tokenizer)
    name = label(prefix, body.request_id, request)
    prompt = TokensPrompt(prompt=text, prompt_token_ids=ids)
    flow = await open_flow(server, body, [prompt], params, name, shown=turn.shown, thinking=thinking)
    return Talk(server, body, flow, name.name, turn, Usage(list(flow.deliveries)), server.now())


async def count(server: Server, body: ChatRequest) -> int:
    """How many tokens the conversation takes as a prompt."""
    _rules(body, server)
    return len((await conversation_ids(server, body, **_variables(body)))[1])


async def reply(
    request: Request,
    talk: Talk,
    headers: dict[str, str],
    whole: Callable[[], Coroutine[Any, Any, Mapping[str, Any]]],
    events: Callable[[], AsyncGenerator[bytes, None]],
    form: Form = SSE,
) -> Response | EventStream | None:
    """The answer as it was asked for, whole or streamed; None when the client has left."""
    if talk.body.stream:
        keep_alive_s = talk.server.args.sse_keep_alive_interval
        return await EventStream.begun(request, Stream(events(), headers, talk.close, form, keep_alive_s, talk.flow))
    try:
        made = await unless_gone(request, whole())
    finally:
        talk.close()
    return None if made is None else Response(_json(made), headers=headers, media_type="application/json")


def _rules(body: ChatRequest, server: Server) -> ToolRules:
    """What the request says about tools; those that may not be called are not shown to the model either."""
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    rules = ToolRules.of(tools, body.tool_choice, body.parallel_tool_calls)
    if rules.choice == "auto" and not server.args.enable_auto_tool_choice:
        raise refused("tool_choice", "'auto' is turned off (--no-enable-auto-tool-choice)")
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


def _variables(body: ChatRequest) -> dict[str, Any]:
    """What a template is told of the effort to make; those that know thinking as a switch get that."""
    effort = body.reasoning_effort
    return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}
