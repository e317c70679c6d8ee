"""How many tokens a message would take as its prompt."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.anthropic.schemas import CountRequest
from vllm.entrypoints.anthropic.translate import as_chat
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.talk import count

NAMES = ("/v1/messages/count_tokens",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = CountRequest
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The count."""
    body = await read(request, CountRequest)
    server.check_model(body.model)
    chat, ignored = as_chat(body)
    headers = server.unknown(ignored, CountRequest)
    return JSONResponse({"input_tokens": await count(server, chat)}, headers=headers)
