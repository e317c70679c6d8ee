"""Tokens in, tokens out: for callers that tokenise and render by themselves, such as trainers.

With output_mode "text" choices have their text too. Log-probabilities name tokens by their ids.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.engine.front import Flow
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.generate import give, label, open_flow
from vllm.entrypoints.openai.logprobs import prompt_logprobs
from vllm.entrypoints.openai.params import sampling_params
from vllm.entrypoints.openai.schemas import TokenRequest, TokenSampling
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import DONE, EventStream
from vllm.entrypoints.openai.usage import Usage
from vllm.inputs import TokensPrompt
from vllm.outputs import CompletionOutput, Logprob, RequestOutput

NAMES = ("/inference/v1/generate",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = TokenRequest
KINDS = ("application/json", "text/event-stream")
_json = msgspec.json.Encoder().encode
_LOWEST = -9999.0


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One answer, whole or streamed."""
    body = await read(request, TokenRequest)
    server.check_model(body.model)
    asked = body.sampling_params
    headers = server.unknown([*asked.unknown_fields(), *(body.model_extra or ())], TokenSampling)
    asked.stream, asked.priority, asked.cache_salt = body.stream, body.priority, body.cache_salt
    if asked.extra_args is not None:
        asked.vllm_xargs = asked.extra_args
    params = sampling_params(
        asked,
        server.front.model.default_sampling,
        max_tokens=asked.max_tokens,
        logprobs=asked.logprobs,
        prompt_logprobs=asked.prompt_logprobs,
    )
    if body.output_mode == "text" and (asked.detokenize is False or server.front.model.tokenizer is None):
        raise HttpError(400, "output_mode 'text' needs a tokenizer, and detokenize not to be false.", "output_mode")
    params.detokenize = body.output_mode == "text" or bool(params.stop)
    name = label("generate-", body.request_id, request)
    flow = await open_flow(server, asked, [TokensPrompt(prompt_token_ids=body.token_ids)], params, name)
    made = _Answer(body, name.name, flow)
    return await give(request, server, made, flow, headers, bool(body.stream))


@dataclass(slots=True)
class _Answer:
    """One answer in the making."""

    body: TokenRequest
    id: str
    flow: Flow

    def _head(self) -> dict[str, Any]:
        return {"request_id": self.id, "output_mode": self.body.output_mode}

    def _choice(self, c: CompletionOutput) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": c.index,
            "token_ids": list(c.token_ids),
            "logprobs": None,
            "finish_reason": c.finish_reason,
            "stop_reason": c.stop_reason,
        }
        wanted = self.body.sampling_params.logprobs
        if wanted is not None:
            choice["logprobs"] = {"content": _logprobs(c.token_ids, c.logprobs or (), wanted)}
        if self.body.output_mode == "text":
            choice["text"] = c.text
        return choice

    async def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        usage, last, choices = Usage(list(self.flow.deliveries)), None, []
        async for batch in self.flow:
            for place, output in batch:
                last = output
                for c in output.outputs:
                    usage.note(place, output, len(c.token_ids))
                    choices.append(self._choice(c))
        choices.sort(key=lambda choice: choice["index"])
        return {**self._head(), "choices": choices, "usage": usage.as_dict(), **self._of_prompt(last)}

    def _of_prompt(self, output: RequestOutput | None) -> dict[str, Any]:
        found = None if output is None else prompt_logprobs(output.prompt_logprobs)
        return {
            "prompt_logprobs": found,
            "prompt_token_ids": self.body.token_ids if self.body.return_token_ids else None,
        }

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in server-sent events."""
        usage = Usage(list(self.flow.deliveries))
        async for batch in self.flow:
            for place, output in batch:
                for c in output.outputs:
                    if c.token_ids or c.text or c.finish_reason is not None:
                        usage.note(place, output, len(c.token_ids))
                        yield b"data: " + _json({**self._head(), "choices": [self._choice(c)]}) + b"\n\n"
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield b"data: " + _json({**self._head(), "choices": [], "usage": usage.as_dict()}) + b"\n\n"
        yield DONE


def _logprobs(token_ids: Sequence[int], found: Sequence[dict[int, Logprob]], wanted: int) -> list[dict[str, Any]]:
    """One object per token: the chosen one, and the most likely."""
    content = []
    for token_id, here in zip(token_ids, found, strict=True):
        best = sorted(here.items(), key=lambda item: -item[1].logprob)[: len(here) if wanted < 0 else wanted]
        content.append(
            {**_token(token_id, here[token_id]), "top_logprobs": [_token(i, one) for i, one in best]},
        )
    return content


def _token(token_id: int, found: Logprob) -> dict[str, Any]:
    return {"token_id": token_id, "logprob": max(found.logprob, _LOWEST), "rank": found.rank}
