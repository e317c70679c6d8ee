"""Steers the engine: sleep, pause, profile, caches, calls into its worker; for trainers and developers.

Profiles need --profiler-config, everything else VLLM_SERVER_DEV_MODE=1 in the server's environment. `mode` says what
becomes of open requests: abort (the default), wait for their ends, or keep them until /wake_up or /resume.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.engine.client import CALL_S
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.state import Server
from vllm.errors import ValidationError
from vllm.util import env

NAMES = (
    "/sleep",
    "/wake_up",
    "/pause",
    "/resume",
    "/start_profile",
    "/stop_profile",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/collective_rpc",
)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = False
BODY = None
KINDS = ("application/json",)
_TAGS = {"weights", "kv_cache"}


class Rpc(BaseModel):
    """A method of the worker, and what it is called with."""

    model_config = ConfigDict(strict=True, extra="allow")
    method: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z]\w*$")
    args: list[Any] = []
    kwargs: dict[str, Any] | None = None
    timeout: float | None = Field(None, gt=0, le=CALL_S)
    """Seconds."""


async def answer(request: Request, server: Server) -> Response:
    """200 when it is done."""
    verb = request.url.path.strip("/")
    check_allowed(server, verb)
    if server.is_draining or not server.front.is_started or server.front.client.dead:
        server.check_ready()
    client = server.front.client
    if verb == "sleep":
        level = _one_of(request, "level", ("1", "0", "2"))
        await (_sleep(request, server, level) if level != "0" else _pause(request, server))
    elif verb == "wake_up":
        await _wake_up(request, server)
    elif verb == "pause":
        await _pause(request, server)
    elif verb == "resume":
        await client.resume()
    elif client.is_asleep:
        server.check_ready()
    elif verb == "start_profile":
        await client.call("start_profile", request.query_params.get("prefix"))
    elif verb == "stop_profile":
        return JSONResponse({"file": await client.call("stop_profile")})
    elif verb == "reset_prefix_cache":
        runs = _one_of(request, "reset_running_requests", ("false", "true")) == "true"
        await client.call("reset_prefix_cache", runs)
    elif verb == "collective_rpc":
        body = await read(request, Rpc)
        found = await client.call(body.method, *body.args, words=body.kwargs, within_s=body.timeout or CALL_S)
        return JSONResponse({"results": found})
    return Response()


def check_allowed(server: Server, verb: str) -> None:
    """404 where the server was not started for it: whoever can reach these routes can stop everybody's answers."""
    if verb.endswith("_profile"):
        if not server.engine_args.profiler_config:
            raise HttpError(404, f'/{verb} needs --profiler-config, such as \'{{"profiler": "torch"}}\'.')
    elif not env.flag("VLLM_SERVER_DEV_MODE"):
        raise HttpError(404, f"/{verb} needs VLLM_SERVER_DEV_MODE=1 in the server's environment.")


def _one_of(request: Request, name: str, allowed: tuple[str, ...]) -> str:
    """A word of the query; the first one allowed is the default."""
    given = request.query_params.get(name, allowed[0]).lower()
    if given not in allowed:
        raise ValidationError.of(name, given, f"one of {', '.join(allowed)}")
    return given


async def _pause(request: Request, server: Server) -> None:
    mode = _one_of(request, "mode", ("abort", "wait", "keep"))
    clears = _one_of(request, "clear_cache", ("true", "false")) == "true"
    if mode == "abort":
        server.open.cancel_all()
    await server.front.client.pause(waits=mode == "wait")
    if clears and mode != "keep" and server.front.client.is_serving:
        await server.front.client.call("reset_prefix_cache", False)


async def _sleep(request: Request, server: Server, level: str) -> None:
    client = server.front.client
    mode = _one_of(request, "mode", ("abort", "wait", "keep"))
    if mode == "abort":
        server.open.cancel_all()
    elif mode == "wait":
        was_paused = client.is_paused
        await client.pause(waits=True)
        client.is_paused = was_paused
    server.asleep = set(_TAGS)
    await client.sleep()
    server.metrics.on_sleep("weights_offloaded" if level == "1" else "discard_all")


async def _wake_up(request: Request, server: Server) -> None:
    tags = set(request.query_params.getlist("tags")) or _TAGS
    if not tags <= _TAGS:
        raise ValidationError.of("tags", sorted(tags - _TAGS), f"of {', '.join(sorted(_TAGS))}")
    server.asleep -= tags
    if not server.asleep and server.front.client.is_asleep:  # why: both take their memory together
        await server.front.client.wake()
        server.metrics.on_sleep("awake")
