"""How many answers are in the making."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.state import Server

NAMES = ("/load",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The number of open requests."""
    return JSONResponse({"server_load": server.front.client.num_open})
