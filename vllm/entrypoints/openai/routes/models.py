"""What is served."""

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
    wanted = request.path_params.get("name")
    if wanted is None:
        return JSONResponse({"object": "list", "data": cards})
    server.check_model(wanted)
    return JSONResponse(next(card for card in cards if card["id"] == wanted))
