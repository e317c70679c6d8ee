"""The API, described for people."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.openapi import CSP, page
from vllm.entrypoints.openai.state import Server

NAMES = ("/docs",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("text/html",)


async def answer(request: Request, server: Server) -> Response:
    """A page without scripts."""
    if server.args.disable_fastapi_docs:
        raise HttpError(404, "There is no such route.")
    headers = {"content-security-policy": CSP, "x-content-type-options": "nosniff"}
    return HTMLResponse(page(server.api()), headers=headers)
