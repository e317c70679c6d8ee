"""The routes as an ASGI application. Does not know: sockets, processes, what a route does.

Invariants: a route that is not marked open asks for the key inside its own wrapper, so no trick with paths goes round
it; every exception becomes an error answer; what the client must not see goes to the log. Called by: api_server.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vllm.entrypoints.openai.errors import HttpError, as_http
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import EventStream
from vllm.util.catalog import Catalogue
from vllm.util.log import get_logger

_log = get_logger(__name__)
Endpoint = Callable[[Request], Coroutine[Any, Any, Any]]


def make_app(server: Server) -> Starlette:
    """All routes of the catalogue for one server."""
    catalogue = Catalogue("vllm.entrypoints.openai.routes", "route")
    routes = []
    for path in catalogue.names():
        module = catalogue.load(path)
        routes.append(Route(path, _endpoint(module, server), methods=list(module.METHODS)))
    middleware = []
    if server.args.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(server.args.allowed_origins),
                allow_methods=["*"],
                allow_headers=["*"],
            )
        )
    handlers: Any = {404: _missing, 405: _missing}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _endpoint(module: ModuleType, server: Server) -> Endpoint:
    """A route behind the rules that hold for all."""

    async def endpoint(request: Request) -> Response | EventStream:
        try:
            if not module.IS_OPEN:
                server.check_key(request)
            if module.NEEDS_ENGINE:
                server.check_ready()
            made = await module.answer(request, server)
            return made if made is not None else Response(status_code=499)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            told = as_http(error)
            if told.status == 500 and not isinstance(error, HttpError):
                _log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
            return told.response()

    return endpoint


async def _missing(request: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    assert isinstance(error, HTTPException)
    missing = error.status_code == 404
    text = "There is no such route." if missing else f"This route does not take {request.method}."
    return HttpError(error.status_code, text).response()
