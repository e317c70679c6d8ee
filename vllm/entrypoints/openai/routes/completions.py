"""Completions: text or ids go on.

The answer has len(prompts) x n choices; choice i belongs to prompt i // n. Invariant: a stream's pieces put together
are the whole answer.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.engine.front import Flow
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.generate import give, label, open_flow
from vllm.entrypoints.openai.logprobs import CompletionLogprobs, prompt_logprobs
from vllm.entrypoints.openai.params import sampling_params
from vllm.entrypoints.openai.schemas import MAX_CHOICES, MAX_PROMPTS, CompletionRequest
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import DONE, EventStream
from vllm.entrypoints.openai.usage import Usage
from vllm.inputs import TypedPrompt, normalize_prompts
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams

NAMES = ("/v1/completions",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = CompletionRequest
KINDS = ("application/json", "text/event-stream")
_json = msgspec.json.Encoder().encode


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One answer, whole or streamed."""
    body = await read(request, CompletionRequest)
    server.check_model(body.model)
    headers = server.unknown(body.unknown_fields(), CompletionRequest)
    prompts = normalize_prompts(body.prompt)
    params = _params(body, server, len(prompts))
    special = body.add_special_tokens if body.add_special_tokens is not None else True
    name = label("cmpl-", body.request_id, request)
    flow = await open_flow(server, body, prompts, params, name, special)
    made = _Answer(body, server, flow, name.name, prompts)
    return await give(request, server, made, flow, headers, bool(body.stream))


def _params(body: CompletionRequest, server: Server, num_prompts: int) -> SamplingParams:
    n = body.n or 1
    if num_prompts == 0:
        raise HttpError(400, "prompt must hold at least one prompt.", "prompt")
    if num_prompts > MAX_PROMPTS or num_prompts * n > MAX_CHOICES:
        raise HttpError(400, f"At most {MAX_PROMPTS} prompts and {MAX_CHOICES} choices fit into a request.", "prompt")
    if body.best_of is not None and body.best_of != n:
        raise HttpError(400, f"best_of must equal n ({n}); a choice among more is not supported.", "best_of")
    echo_logprobs = body.logprobs if body.echo else None
    return sampling_params(
        body,
        server.front.model.default_sampling,
        # why: a prompt alone may be asked for; the engine always makes a token, and it is not shown
        max_tokens=1 if body.echo and body.max_tokens == 0 else body.max_tokens,
        logprobs=body.logprobs,
        prompt_logprobs=body.prompt_logprobs if body.prompt_logprobs is not None else echo_logprobs,
    )


@dataclass(slots=True)
class _Answer:
    """One answer in the making."""

    body: CompletionRequest
    server: Server
    flow: Flow
    id: str
    prompts: list[TypedPrompt]

    def _choice(self, place: int, output: RequestOutput, c: CompletionOutput, state: "_Choice") -> dict[str, Any]:
        """What is new of one choice."""
        body = self.body
        text, ids, found = c.text, list(c.token_ids), list(c.logprobs or ())
        if body.echo and body.max_tokens == 0:
            text, ids, found = "", [], []
        num_new = len(ids)
        if body.echo and not state.is_begun:
            text = self._prompt_text(place, output) + text
            ids = [*(output.prompt_token_ids or ()), *ids]
            if body.logprobs is not None:
                found = [*(output.prompt_logprobs or ()), *found]
        first, state.is_begun = not state.is_begun, True
        state.usage.note(place, output, num_new)
        choice: dict[str, Any] = {
            "index": place * (body.n or 1) + c.index,
            "text": text,
            "logprobs": None if state.logprobs is None else state.logprobs.of(ids, found),
            "finish_reason": "length" if body.echo and body.max_tokens == 0 else c.finish_reason,
            "stop_reason": c.stop_reason,
        }
        if body.prompt_logprobs is not None and first:
            choice["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        if body.return_token_ids:
            choice["token_ids"] = ids
            choice["prompt_token_ids"] = output.prompt_token_ids if first else None
        return choice

    def _prompt_text(self, place: int, output: RequestOutput) -> str:
        text = self.prompts[place].get("prompt")
        return text if isinstance(text, str) else self.server.tokenizer.decode(output.prompt_token_ids or [])

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.server.now(),
            "model": self.body.model or self.server.names[0],
            "system_fingerprint": self.server.fingerprint,
        }

    def _states(self, usage: Usage) -> "dict[tuple[int, int], _Choice]":
        wanted, as_ids = self.body.logprobs, self.server.as_ids(self.body)
        text = self.server.front.model.token_text
        return {
            (place, index): _Choice(usage, None if wanted is None else CompletionLogprobs(wanted, as_ids, text))
            for place in range(len(self.prompts))
            for index in range(self.body.n or 1)
        }

    async def whole(self) -> Mapping[str, Any]:
        """The answer in one piece."""
        usage = Usage(list(self.flow.deliveries))
        states, choices = self._states(usage), []
        async for batch in self.flow:
            for place, output in batch:
                choices += [self._choice(place, output, c, states[place, c.index]) for c in output.outputs]
        choices.sort(key=lambda choice: choice["index"])
        return {**self._head(), "choices": choices, "usage": usage.as_dict()}

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in server-sent events: those of one step come in one piece."""
        options = self.body.stream_options
        ends_with_usage = self.server.args.enable_force_include_usage or bool(options and options.include_usage)
        with_usage = bool(options and options.continuous_usage_stats)
        usage = Usage(list(self.flow.deliveries))
        states = self._states(usage)
        head = b"data: " + _json(self._head())[:-1] + b',"choices":['
        async for batch in self.flow:
            pieces = []
            for place, output in batch:
                for c in output.outputs:
                    if not c.text and not c.token_ids and c.finish_reason is None:
                        continue
                    choice = _json(self._choice(place, output, c, states[place, c.index]))
                    tail = b',"usage":' + _json(usage.as_dict()) if with_usage else b""
                    pieces.append(head + choice + b"]" + tail + b"}\n\n")
            if pieces:
                yield b"".join(pieces)
        if ends_with_usage:
            yield head + b'],"usage":' + _json(usage.as_dict()) + b"}\n\n"
        yield DONE


@dataclass(slots=True)
class _Choice:
    """Where one choice stands."""

    usage: Usage
    logprobs: CompletionLogprobs | None
    is_begun: bool = False
