"""Which version answers Ollama's clients."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.state import Server
from vllm.version import __version__

NAMES = ("/api/version",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The version."""
    return JSONResponse({"version": __version__})
