"""Ends answers that are in the making."""

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.state import Server

NAMES = ("/abort_requests",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True


class AbortRequest(BaseModel):
    """The ids of answers, or the request_id that their clients gave."""

    model_config = ConfigDict(strict=True, extra="allow")
    request_ids: list[str]


BODY = AbortRequest
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """Which of them were open, and end now with finish_reason "abort"."""
    body = await read(request, AbortRequest)
    headers = server.unknown(list(body.model_extra or ()), AbortRequest)
    ended = [name for name in dict.fromkeys(body.request_ids) if server.open.cancel(name)]
    missing = [name for name in dict.fromkeys(body.request_ids) if name not in ended]
    return JSONResponse({"aborted": ended, "not_found": missing}, headers=headers)
