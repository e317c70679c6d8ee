"""How many tokens a response would take as its input."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.responses.schemas import InputRequest
from vllm.entrypoints.openai.responses.translate import as_chat
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.talk import count

NAMES = ("/v1/responses/input_tokens",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = InputRequest
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The count."""
    body = await read(request, InputRequest)
    server.check_model(body.model)
    earlier: list[dict[str, Any]] = []
    if body.previous_response_id is not None:
        earlier = server.responses.conversation(body.previous_response_id, server.owner(request))
    chat, _, ignored = as_chat(body, earlier)
    headers = server.unknown(ignored, InputRequest)
    tokens = await count(server, chat)
    return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens}, headers=headers)
