"""Which models are loaded: the one that is served."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.ollama.card import card
from vllm.entrypoints.openai.state import Server

NAMES = ("/api/ps",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The served model, which never goes."""
    length = server.front.model.ready.max_model_len
    loaded = {"expires_at": "2318-01-01T00:00:00Z", "size_vram": 0, "context_length": length}
    return JSONResponse({"models": [{**card(server, name), **loaded} for name in server.names]})
