"""What a stored response was asked."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.state import Server

NAMES = ("/v1/responses/{response_id}/input_items",)
METHODS = ("GET",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The items of its input."""
    response_id = request.path_params["response_id"]
    entry = server.responses.get(response_id, server.owner(request))
    items = [_item(response_id, i, given) for i, given in enumerate(entry.input)]
    if request.query_params.get("order", "desc") == "desc":
        items.reverse()
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return JSONResponse({"object": "list", "data": items, "has_more": False, **ends})


def _item(response_id: str, index: int, given: dict[str, object]) -> dict[str, object]:
    item = {"id": f"{response_id}_{index}", "type": "message", **given}
    if item["type"] == "message" and isinstance(item.get("content"), str):
        item["content"] = [{"type": "input_text", "text": item["content"]}]
    return item
