"""Embeddings: one vector for each text.

The vectors are floats, or base64 of little-endian float32, which clients unpack by themselves.
"""

import base64
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.engine.front import Flow
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.generate import label, open_flow
from vllm.entrypoints.openai.schemas import MAX_PROMPTS, EmbeddingRequest
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import unless_gone
from vllm.features.pooling.host import numbers
from vllm.inputs import normalize_prompts
from vllm.pooling_params import PoolingParams

NAMES = ("/v1/embeddings",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = EmbeddingRequest
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response | None:
    """All vectors, in the order of the texts."""
    body = await read(request, EmbeddingRequest)
    server.check_model(body.model)
    headers = server.unknown(body.unknown_fields(), EmbeddingRequest)
    prompts = normalize_prompts(body.input)
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise HttpError(400, f"input must hold 1 to {MAX_PROMPTS} texts, got {len(prompts)}.", "input")
    asked = PoolingParams(
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        dimensions=body.dimensions,
        use_activation=body.use_activation,
    )
    sampling, features = server.recipe.take(asked)
    special = body.add_special_tokens if body.add_special_tokens is not None else True
    name = label("embd-", body.request_id, request)
    flow = await open_flow(server, body, prompts, sampling, name, special, features=features)
    try:
        ended = await unless_gone(request, _wait(flow))
    finally:
        flow.close()
    if ended is None:
        return None
    num = sum(len(delivery.taken.prompt_token_ids) for delivery in flow.deliveries)
    whole = {
        "id": name.name,
        "object": "list",
        "created": server.now(),
        "model": body.model or server.names[0],
        "data": [
            {"index": i, "object": "embedding", "embedding": _shown(delivery.states, body.encoding_format)}
            for i, delivery in enumerate(flow.deliveries)
        ],
        "usage": {"prompt_tokens": num, "total_tokens": num, "completion_tokens": 0, "prompt_tokens_details": None},
    }
    return Response(msgspec.json.encode(whole), headers=headers, media_type="application/json")


async def _wait(flow: Flow) -> bool:
    async for _ in flow:
        pass
    return True


def _shown(states: bytes | None, encoding: str) -> Any:
    assert states is not None, "a request that did not fail has its vector"
    return numbers(states) if encoding == "float" else base64.b64encode(states).decode("ascii")
