"""Which models there are."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.ollama.card import card, since
from vllm.entrypoints.openai.state import Server

NAMES = ("/api/tags",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The names that are served."""
    return JSONResponse({"models": [{**card(server, name), "modified_at": since(server)} for name in server.names]})
