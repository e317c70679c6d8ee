"""From prompts to a Flow of outputs, and from what is made of it to the answer. Called by: routes, talk."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.engine.deliver import Delivery
from vllm.engine.front import Flow
from vllm.entrypoints.openai.running import Label
from vllm.entrypoints.openai.schemas import EmbeddingRequest, Generation
from vllm.entrypoints.openai.state import Server, given_key
from vllm.entrypoints.openai.stream import EventStream, Stream, unless_gone
from vllm.entrypoints.openai.traces import CARRIED
from vllm.errors import PromptError
from vllm.features.structured_output.matching import Thinking
from vllm.inputs import TypedPrompt
from vllm.sampling_params import SamplingParams


def label(prefix: str, asked_id: str | None, request: Request) -> Label:
    """The id of an answer: the one that was asked for, else a random one."""
    asked: str = asked_id or request.state.request_id
    name = f"{prefix}{asked if asked.isascii() and asked.isprintable() else uuid.uuid4().hex}"
    carried = {key: request.headers[key] for key in CARRIED if key in request.headers}
    return Label(name, carried, given_key(request).hex())


async def open_flow(
    server: Server,
    body: Generation | EmbeddingRequest,
    prompts: Sequence[TypedPrompt],
    params: SamplingParams,
    name: Label,
    special: bool = False,
    shown: frozenset[int] = frozenset(),
    thinking: Thinking | None = None,
    features: Mapping[str, object] | None = None,
) -> Flow:
    """Take in every prompt, then queue them all under the answer's id. ValueError names a prompt that cannot be served.

    Close the flow in any case.
    """
    server.check_room()
    own = uuid.uuid4().hex  # why: a client may give the same request_id twice
    deliveries: list[Delivery] = []
    tenant = server.tenant(name.key, body.user)
    features = dict(features or {})
    if params.structured_outputs is not None:
        features = await server.structured.take_later(params, thinking)
    for place, prompt in enumerate(prompts):
        await asyncio.sleep(0)  # why: a thousand prompts must not hold up everybody's streams
        if body.cache_salt is not None:
            prompt["cache_salt"] = body.cache_salt
        try:
            deliveries.append(
                await server.front.take(
                    f"{own}-{place}",
                    prompt,
                    params,
                    priority=body.priority,
                    tenant=tenant,
                    special=special,
                    shown=shown,
                    features=features,
                )
            )
        except PromptError as error:
            if len(prompts) > 1:
                error.args = (f"prompt[{place}]: {error}",)
            raise
    # why: others may have come while these were read, and now it is known how long they are
    server.check_room(len(deliveries), sum(delivery.taken.request.prompt_len for delivery in deliveries))
    flow = server.front.open(deliveries)
    server.open.add(name, flow)
    return flow


class Made(Protocol):
    """An answer in the making, in its two forms."""

    async def whole(self) -> Any:
        """In one piece."""

    def events(self) -> AsyncGenerator[bytes, None]:
        """In server-sent events."""


async def give(
    request: Request, server: Server, made: Made, flow: Flow, headers: dict[str, str], is_streamed: bool
) -> Response | EventStream | None:
    """The answer as it was asked for; None when the client has left. The flow is closed in any case."""
    if is_streamed:
        keep_alive_s = server.args.sse_keep_alive_interval
        stream = Stream(made.events(), headers, flow.close, keep_alive_s=keep_alive_s, flow=flow)
        return await EventStream.begun(request, stream)
    try:
        whole = await unless_gone(request, made.whole())
    finally:
        flow.close()
    if whole is None:
        return None
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")
