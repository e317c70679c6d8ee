"""Whether the server lives and can answer."""

from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.openai.errors import RETRY_S
from vllm.entrypoints.openai.state import Server

NAMES = ("/health", "/ping")
METHODS = ("GET", "POST")
IS_OPEN = True
NEEDS_ENGINE = False
BODY = None
KINDS = ("text/plain",)


async def answer(request: Request, server: Server) -> Response:
    """200 while an engine serves; 503 while it starts, is restarted, sleeps, has stopped, or the server drains."""
    front = server.front
    if front.is_started and front.client.is_serving and not server.is_draining:
        return Response()
    asleep = b"The engine sleeps." if front.is_started and front.client.is_asleep else b""
    return Response(asleep, 503, {"retry-after": RETRY_S}, "text/plain")
