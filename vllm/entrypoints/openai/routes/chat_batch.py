"""Many conversations in one request: each is a chat completion of its own, and choice i answers conversation i.

With n choices each, choice i belongs to conversation i // n. Neither streams nor tools.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError, refused
from vllm.entrypoints.openai.routes.chat import Answer
from vllm.entrypoints.openai.schemas import MAX_CHOICES, ChatBatchRequest, ChatRequest
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import unless_gone
from vllm.entrypoints.openai.talk import Talk, begin

NAMES = ("/v1/chat/completions/batch",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = ChatBatchRequest
KINDS = ("application/json",)
_json = msgspec.json.Encoder().encode


async def answer(request: Request, server: Server) -> Response | None:
    """One answer with the choices of all conversations."""
    body = await read(request, ChatBatchRequest)
    rest = dict(body.model_extra or {})
    if rest.get("tools"):
        raise refused("tools", "a batch of conversations calls none; send them one by one")
    bodies = [ChatRequest.model_validate({**rest, "messages": one}) for one in body.messages]
    server.check_model(bodies[0].model)
    headers = server.unknown(bodies[0].unknown_fields(), ChatRequest)
    num = bodies[0].n or 1
    if len(bodies) * num > MAX_CHOICES:
        raise HttpError(400, f"At most {MAX_CHOICES} choices fit into a request.", "messages")
    talks: list[Talk] = []
    try:
        for place, one in enumerate(bodies):
            try:
                talks.append(await begin(server, one, request, "chatcmpl-"))
            except ValueError as error:
                error.args = (f"messages[{place}]: {error}",)
                raise
        answers = [Answer(one, server, talk) for one, talk in zip(bodies, talks, strict=True)]
        made = await unless_gone(request, _all(answers, num))
    finally:
        for talk in talks:
            talk.close()
    return None if made is None else Response(_json(made), headers=headers, media_type="application/json")


async def _all(answers: list[Answer], num: int) -> Mapping[str, Any]:
    """The answers as one."""
    wholes = await asyncio.gather(*(one.whole() for one in answers))
    choices = [
        {**choice, "index": place * num + choice["index"]}
        for place, whole in enumerate(wholes)
        for choice in whole["choices"]
    ]
    return {**wholes[0], "choices": choices, "usage": _sum([whole["usage"] for whole in wholes])}


def _sum(usages: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of several answers, added up."""
    return {
        name: _sum([one[name] for one in usages]) if isinstance(first, Mapping) else sum(one[name] for one in usages)
        for name, first in usages[0].items()
    }
