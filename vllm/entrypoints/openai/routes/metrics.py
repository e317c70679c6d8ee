"""The counts, for Prometheus."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.openai.state import Server

NAMES = ("/metrics",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("text/plain",)


async def answer(request: Request, server: Server) -> Response:
    """Prometheus' text format."""
    return Response(server.metrics.text(), media_type=CONTENT_TYPE_LATEST)
