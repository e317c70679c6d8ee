"""OpenAI's Responses: a conversation goes on by one response of items: thoughts, text, function calls.

What is stored can be gone on from with previous_response_id, for as long as there is room (--max-stored-responses).
With `background` the answer is made with nobody waiting, and fetched later. Without it a client that leaves cancels it;
what it had got is stored as it is, so that the conversation can go on from there.
"""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.responses.items import Items
from vllm.entrypoints.openai.responses.making import FORM, Making, blank
from vllm.entrypoints.openai.responses.replay import replay
from vllm.entrypoints.openai.responses.schemas import ResponsesRequest
from vllm.entrypoints.openai.responses.store import Entry
from vllm.entrypoints.openai.responses.translate import as_chat
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream, Stream, unless_gone
from vllm.entrypoints.openai.talk import begin
from vllm.errors import ValidationError

NAMES = ("/v1/responses",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = ResponsesRequest
KINDS = ("application/json", "text/event-stream")
_json = msgspec.json.Encoder().encode
_behind: set["asyncio.Task[None]"] = set()
"""Tasks of responses in the background; asyncio itself keeps no hold of them."""


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """One response, whole, streamed, or in the background."""
    body = await read(request, ResponsesRequest)
    server.check_model(body.model)
    owner, store = server.owner(request), server.responses
    is_stored = body.store is not False and store.is_on
    if body.background and not is_stored:
        raise ValidationError("background needs store, and a server that stores responses.", field="background")
    earlier: list[dict[str, Any]] = []
    if body.previous_response_id is not None:
        earlier = store.conversation(body.previous_response_id, owner)
    chat, conversation, ignored = as_chat(body, earlier)
    headers = server.unknown(ignored, ResponsesRequest)
    talk = await begin(server, chat, request, "resp_")
    try:
        given = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
        entry = Entry(owner, blank(talk, body, is_stored), given, conversation, talk.flow.cancel)
        made = Making(talk, body, entry, store if is_stored else None, Items(body.include_reasoning))
        if body.background:
            store.put(entry)
    except BaseException:
        talk.close()
        raise
    if body.background:
        task = asyncio.create_task(made.behind())
        _behind.add(task)
        task.add_done_callback(_behind.discard)
        if body.stream:
            return await EventStream.begun(request, Stream(replay(entry, 0), headers, _nothing, FORM))
        return Response(_json(entry.response), headers=headers, media_type="application/json")
    if body.stream:
        keep_alive_s = server.args.sse_keep_alive_interval
        return await EventStream.begun(request, Stream(made.events(), headers, made.leave, FORM, keep_alive_s))
    try:
        whole = await unless_gone(request, made.whole())
    finally:
        made.leave()
    return None if whole is None else Response(_json(whole), headers=headers, media_type="application/json")


def _nothing() -> None:
    """Leaving the stream of a background response ends nothing."""
