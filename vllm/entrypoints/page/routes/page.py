"""The page for people.

Chat, a live dashboard and the list of requests, in English and Chinese; needs no other server.
"""

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.state import Server

NAMES = ("/", "/page/files/{name}")
METHODS = ("GET",)
IS_OPEN = True
NEEDS_ENGINE = False
BODY = None
KINDS = ("text/html", "text/javascript", "text/css", "image/svg+xml")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KIND = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_FOLDER = files("vllm.entrypoints.page") / "files"
_NAMES = {item.name for item in _FOLDER.iterdir() if item.name.rpartition(".")[2] in _KIND}


async def answer(request: Request, server: Server) -> Response:
    """A file of the page."""
    name = request.path_params.get("name", "index.html")
    if name not in _NAMES:
        raise HttpError(404, "There is no such route.")
    data = (_FOLDER / name).read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {
        "content-security-policy": CSP,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "etag": tag,
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=f"{_KIND[name.rpartition('.')[2]]}; charset=utf-8", headers=headers)
