"""What is served, in the words of OpenAI, or of Anthropic for its clients."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.state import Server

NAMES = ("/v1/models", "/v1/models/{name:path}")
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """All models, or the one that is named."""
    cards = [
        {
            "id": name,
            "object": "model",
            "created": server.created,
            "owned_by": "vllm",
            "root": server.engine_args.model or "builtin",
            "parent": None,
            "max_model_len": server.front.model.ready.max_model_len,
        }
        for name in server.names
    ]
    if "anthropic-version" in request.headers:
        made = datetime.fromtimestamp(server.created, UTC).isoformat().replace("+00:00", "Z")
        cards = [{"id": n, "type": "model", "display_name": n, "created_at": made} for n in server.names]
    wanted = request.path_params.get("name")
    if wanted is None:
        ends = {"has_more": False, "first_id": server.names[0], "last_id": server.names[-1]}
        return JSONResponse({"object": "list", "data": cards, **ends})
    server.check_model(wanted)
    return JSONResponse(next(card for card in cards if card["id"] == wanted))
