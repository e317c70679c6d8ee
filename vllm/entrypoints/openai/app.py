"""The routes as an ASGI application. Does not know: sockets, processes, what a route does.

Invariants: a route that is not marked open asks for the key inside its own wrapper, so no trick with paths goes round
it; every exception becomes an error answer in the shape of the route's API; what the client must not see goes to the
log. Called by: api_server.
"""

import asyncio
import inspect
import time
import uuid
from collections.abc import Callable, Coroutine
from functools import cache
from types import ModuleType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm.entrypoints.anthropic.errors import anthropic_error
from vllm.entrypoints.ollama.errors import ollama_error
from vllm.entrypoints.openai.errors import HttpError, Shape, as_http, openai_error
from vllm.entrypoints.openai.openapi import Door, document
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream
from vllm.errors import nearest
from vllm.util.catalog import Catalogue
from vllm.util.log import get_logger

_log = get_logger(__name__)
Endpoint = Callable[[Request], Coroutine[Any, Any, Any]]
FAMILIES: tuple[tuple[str, Shape], ...] = (
    ("openai", openai_error),
    ("anthropic", anthropic_error),
    ("ollama", ollama_error),
    ("page", openai_error),
)
"""Folder of routes -> how they tell errors."""
_PREFIXES: tuple[tuple[str, Shape], ...] = (("/v1/messages", anthropic_error), ("/api/", ollama_error))
"""Where the clients of other APIs are, so that they can read what is said of a route that is not there."""

_WEIGHTS = "a server reads weights from a folder: /collective_rpc with reload_weights (docs/serving.md)"
_HEADS = "models with a head for classes or rewards are not supported yet; /v1/embeddings is"
_SPEECH = "only text is read and made"
ABSENT = {
    **dict.fromkeys(("/init_weight_transfer_engine", "/update_weights", "/start_weight_update"), _WEIGHTS),
    "/server_info": "/version, /metrics and `vllm plan` tell it",
    **dict.fromkeys(("/pooling", "/classify", "/v1/classify", "/score", "/v1/score"), _HEADS),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), _HEADS),
    **dict.fromkeys(("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime"), _SPEECH),
    **dict.fromkeys(("/v1/load_lora_adapter", "/v1/unload_lora_adapter"), "adapters are not supported yet"),
    "/generate": "that is the demonstration server of vLLM's examples; use /v1/completions",
    "/invocations": "use /v1/completions or /v1/chat/completions",
    "/tokenizer_info": "use /tokenize and /detokenize",
}
"""vLLM's other routes, and why they are not here."""


def make_app(server: Server) -> Starlette:
    """All routes of the catalogues for one server."""
    routes, doors = [], []
    for family, shape in FAMILIES:
        catalogue = Catalogue(f"vllm.entrypoints.{family}.routes", "route")
        for path in catalogue.names():
            module = catalogue.load(path)
            routes.append(Route(path, _endpoint(module, path, server, shape), methods=list(module.METHODS)))
            doors.append(_door(family, path, module))
    args = server.args
    middleware = []
    if args.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(args.allowed_origins),
                allow_methods=list(args.allowed_methods),
                allow_headers=list(args.allowed_headers),
            )
        )
    server.api = cache(lambda: document(doors, has_keys=bool(args.api_key)))  # why: the engine need not wait for it
    handlers: Any = {404: _missing, 405: _missing}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _door(family: str, path: str, module: ModuleType) -> Door:
    """A route as the API's description tells of it: with the sentences of its own file."""
    title, _, text = inspect.cleandoc(module.__doc__ or "").partition("\n")
    return Door(path, module.METHODS, family, title, text.strip(), module.IS_OPEN, module.BODY, module.KINDS)


def _endpoint(module: ModuleType, path: str, server: Server, shape: Shape) -> Endpoint:
    """A route behind the rules that hold for all."""
    with_id = server.args.enable_request_id_headers

    async def endpoint(request: Request) -> ASGIApp:
        began = time.monotonic()
        request.state.request_id = request.headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        made = await answer(request)
        if with_id and request.state.request_id.isprintable() and request.state.request_id.isascii():
            made.headers["x-request-id"] = request.state.request_id
        status = made.status_code
        return _Counted(made, lambda: server.metrics.on_http(path, request.method, status, time.monotonic() - began))

    async def answer(request: Request) -> Response | EventStream:
        try:
            if not module.IS_OPEN:
                server.check_key(request)
            if module.NEEDS_ENGINE:
                server.check_ready()
            made: Response | EventStream | None = await module.answer(request, server)
            return made if made is not None else Response(status_code=499)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            told = as_http(error)
            if told.status == 500 and not isinstance(error, HttpError):
                _log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
            return Response(shape(told), told.status, told.headers, "application/json")

    return endpoint


class _Counted:
    """An answer whose end is told."""

    def __init__(self, made: ASGIApp, tell: Callable[[], None]) -> None:
        self._made, self._tell = made, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._made(scope, receive, send)
        finally:
            self._tell()


async def _missing(request: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    assert isinstance(error, HTTPException)
    missing, path = error.status_code == 404, request.url.path
    routes = [route.path for route in request.app.routes if isinstance(route, Route)]
    text = f"There is no such route.{nearest(path[:128], routes)}"
    if not missing:
        text = f"This route does not take {request.method}; it takes {(error.headers or {}).get('Allow', '')}."
    why = ABSENT.get(path) if missing else None
    told = HttpError(error.status_code, text if why is None else f"{path} is not in this version: {why}.")
    shape = next((shape for prefix, shape in _PREFIXES if path.startswith(prefix)), openai_error)
    return Response(shape(told), told.status, {**told.headers, **(error.headers or {})}, "application/json")
