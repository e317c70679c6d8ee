"""From the prompts of a request to a Flow of outputs. Called by: routes/completions, routes/chat."""

import asyncio
import uuid
from collections.abc import Sequence

from starlette.requests import Request

from vllm.engine.deliver import Delivery
from vllm.engine.front import Flow
from vllm.entrypoints.openai.schemas import Generation
from vllm.entrypoints.openai.state import Server
from vllm.errors import PromptError
from vllm.inputs import TypedPrompt
from vllm.sampling_params import SamplingParams


def answer_id(prefix: str, body: Generation, request: Request) -> str:
    """The id of an answer: the one that was asked for, else a random one."""
    asked = body.request_id or request.headers.get("x-request-id", "")[:128]
    return f"{prefix}-{asked if asked.isascii() and asked.isprintable() and asked else uuid.uuid4().hex}"


async def open_flow(
    server: Server,
    body: Generation,
    prompts: Sequence[TypedPrompt],
    params: SamplingParams,
    special: bool,
    shown: frozenset[int] = frozenset(),
) -> Flow:
    """Take in every prompt, then queue them all. Raises ValueError naming the prompt that cannot be served."""
    own = uuid.uuid4().hex  # why: a client may give the same request_id twice
    deliveries: list[Delivery] = []
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
                    tenant=body.user or "",
                    special=special,
                    shown=shown,
                )
            )
        except PromptError as error:
            if len(prompts) > 1:
                error.args = (f"prompt[{place}]: {error}",)
            raise
    return server.front.open(deliveries)
