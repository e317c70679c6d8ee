"""A stored response: fetch it, stream it again from any event on (`stream`, `starting_after`), or forget it."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.responses.making import FORM
from vllm.entrypoints.openai.responses.replay import replay
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream, Stream

NAMES = ("/v1/responses/{response_id}",)
METHODS = ("GET", "DELETE")
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json", "text/event-stream")


async def answer(request: Request, server: Server) -> Response | EventStream | None:
    """The response, or that it is gone."""
    response_id = request.path_params["response_id"]
    entry = server.responses.get(response_id, server.owner(request))
    if request.method == "DELETE":
        server.responses.drop(response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})
    if request.query_params.get("stream", "false").lower() not in ("true", "1"):
        return JSONResponse(entry.response)
    if not entry.response["background"]:
        raise HttpError(400, "Only a response that was made in the background can be streamed again.", "stream")
    after = request.query_params.get("starting_after", "-1")
    if not after.removeprefix("-").isdecimal() or len(after) > 18:
        raise HttpError(400, "starting_after must be a whole number.", "starting_after")
    return await EventStream.begun(request, Stream(replay(entry, int(after) + 1), {}, _nothing, FORM))


def _nothing() -> None:
    """Leaving this stream ends nothing."""
