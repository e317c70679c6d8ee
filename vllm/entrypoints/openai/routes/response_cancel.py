"""Ends a response that is made in the background."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.state import Server

NAMES = ("/v1/responses/{response_id}/cancel",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The response as it is then."""
    entry = server.responses.get(request.path_params["response_id"], server.owner(request))
    if not entry.response["background"]:
        raise HttpError(400, "Only a response that is made in the background can be cancelled.", "response_id")
    if entry.cancel is not None:
        entry.cancel()
    while not entry.is_told:
        await entry.wait()
    return JSONResponse(entry.response)
