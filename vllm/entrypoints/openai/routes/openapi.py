"""The API, described for machines."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.state import Server

NAMES = ("/openapi.json",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The OpenAPI document."""
    if server.args.disable_fastapi_docs:
        raise HttpError(404, "There is no such route.")
    return JSONResponse(server.api())
