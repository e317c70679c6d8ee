"""What goes on in the server, for its page.

Counts, the last steps, the blocks of the KV cache, and the live sequences without their texts.
"""

import base64

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm.engine.glance import Glance
from vllm.entrypoints.openai.state import Server
from vllm.version import __version__

NAMES = ("/page/state",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """A look at the engine; `engine` is null while there is none."""
    client = server.front.client if server.front.is_started else None
    glance = await client.peek() if client is not None else None
    told = {
        "models": server.names,
        "version": __version__,
        "uptime": server.now() - server.created,
        "is_draining": server.is_draining,
        "restarts": client.num_restarts if client is not None else 0,
        "description": server.front.model.ready.description if client is not None else "",
        "max_model_len": server.front.model.ready.max_model_len if client is not None else 0,
        "counts": msgspec.to_builtins(client.stats) if client is not None else None,
        "engine": _engine(glance, server.open.by_request()) if glance is not None else None,
    }
    return Response(msgspec.json.encode(told), media_type="application/json", headers={"cache-control": "no-store"})


def _engine(glance: Glance, names: dict[str, str]) -> dict[str, object]:
    """The glance, with the names by which clients know their requests."""
    told = msgspec.to_builtins(glance)
    told["cells"] = base64.b64encode(glance.cells).decode()
    for mark in told["sequences"]:
        mark["name"] = names.get(mark["request_id"], "")
    return told
