"""Whether the engine sleeps, or is paused. Needs VLLM_SERVER_DEV_MODE=1 in the server's environment."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.routes.control import check_allowed
from vllm.entrypoints.openai.state import Server

NAMES = ("/is_sleeping", "/is_paused")
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """True or false under the question's own name."""
    verb = request.url.path.strip("/")
    check_allowed(server, verb)
    has_client = server.front.is_started
    if verb == "is_sleeping":
        return JSONResponse({verb: has_client and server.front.client.is_asleep})
    return JSONResponse({verb: has_client and server.front.client.is_paused})
