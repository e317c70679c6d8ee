"""The server as a program: `vllm serve` and `python -m vllm.entrypoints.openai.api_server`.

    bind ─▶ HTTP answers 503 ─▶ model found, engine ready ─▶ serve ─▶ SIGTERM: finish what is open ─▶ end

Does not know: routes, texts. Invariants: the port is taken before anything is loaded; what stops the server is the last
line of its log, and then the exit status is not 0; no child outlives it. Called by: cli/serve.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vllm.config.args import EngineArgs
from vllm.config.cli import FlexibleArgumentParser
from vllm.config.server import ServerArgs
from vllm.config.server_compat import judge_server_others
from vllm.config.server_flags import add_server_arguments
from vllm.entrypoints.openai.listen import address_of, check_tls_files, listen, refresh_tls
from vllm.errors import EngineDeadError, ValidationError, sentence
from vllm.formats.choose import choose
from vllm.util import env
from vllm.util.log import get_logger, set_level

if TYPE_CHECKING:
    from vllm.entrypoints.openai.state import Server

_log = get_logger("vllm.server")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal or the engine's end; returns the exit status. Raises ValueError for a bad argument."""
    judge_server_others(arguments, _log)
    given = vars(arguments)
    args = ServerArgs(**{f.name: given[f.name] for f in fields(ServerArgs)})
    key = env.text("VLLM_API_KEY")
    keys = args.keys or (() if key is None else (key,))
    args = replace(args, api_key=keys or None, api_key_file=None)
    engine_args = EngineArgs.from_cli_args(arguments)
    if callable(engine_args.hf_overrides):
        raise ValidationError("hf_overrides must be JSON here.", field="hf_overrides")
    if engine_args.log_level is not None:
        set_level(engine_args.log_level)
    if args.fail_on_environ_validation and env.unknown():
        raise ValidationError(f"{env.unknown()[0]}.", field="fail_on_environ_validation")
    with listen(args) as sock:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(_serve(engine_args, args, sock))
        try:
            return uvloop.run(_serve(engine_args, args, sock))
        finally:
            if args.uds is not None:
                Path(args.uds).unlink(missing_ok=True)


async def _serve(engine_args: EngineArgs, args: ServerArgs, sock: socket.socket) -> int:
    """Answer HTTP at once, with 503 until the engine is ready."""
    from vllm.engine.front import Front
    from vllm.entrypoints.openai.app import make_app
    from vllm.entrypoints.openai.http import make_server
    from vllm.entrypoints.openai.metrics import Metrics
    from vllm.entrypoints.openai.state import Server
    from vllm.entrypoints.openai.traces import Traces

    name = (engine_args.served_model_name or (engine_args.model or "builtin",))[0]
    metrics = Metrics(name)
    front = Front(engine_args, metrics)
    traces = None
    if engine_args.otlp_traces_endpoint is not None:
        traces = Traces(engine_args.otlp_traces_endpoint, name)
    server = Server(engine_args, args, front, metrics, traces)
    http = make_server(make_app(server), args)
    check_tls_files(args)
    try:
        http.config.load()
    except OSError as error:
        files = f"{args.ssl_certfile} and {args.ssl_keyfile}"
        why = "they are no certificate with its key, in PEM" if isinstance(error, ssl.SSLError) else str(error)
        raise ValidationError(f"the TLS files {files} cannot be used: {why}.", field="ssl_certfile") from None

    def on_signal() -> None:
        if server.is_draining:
            _log.warning("A second signal: leaving at once.")
            os._exit(1)  # why: it is meant; the engine ends with us
        http.should_exit = server.is_draining = True
        if len(server.open):
            _log.info(
                "Shutting down: %d open requests have %g s to end; a second signal leaves at once.",
                len(server.open),
                args.shutdown_timeout,
            )

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    starting = asyncio.create_task(_start(server, sock))
    helpers = _helpers(server, http.config.ssl)
    cause = ""
    answering = asyncio.create_task(http.serve(sockets=[sock]))
    try:
        await asyncio.wait({starting, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        starting.result()
        engine = asyncio.create_task(front.client.wait_dead())
        await asyncio.wait({engine, answering}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            engine.cancel()
            return 0
        raise EngineDeadError(front.client.dead)
    except (OSError, ValueError, EngineDeadError) as error:
        cause = sentence(error)
        http.should_exit = True
        await answering
        return 1
    finally:
        for task in (starting, *helpers):
            task.cancel()
        await front.stop()
        if traces is not None:
            await asyncio.to_thread(traces.close)
        with contextlib.suppress(asyncio.CancelledError, OSError, ValueError, EngineDeadError):
            await starting
        _log.log(logging.ERROR if cause else logging.INFO, "The server has ended%s", f": {cause}" if cause else ".")


def _helpers(server: "Server", tls: ssl.SSLContext | None) -> list["asyncio.Task[None]"]:
    """What runs beside the server."""
    from vllm.entrypoints.openai.log import tell_stats

    found = []
    if not server.engine_args.disable_log_stats:
        found.append(asyncio.create_task(tell_stats(server.metrics)))
    args = server.args
    if args.enable_ssl_refresh and tls is not None and args.ssl_certfile and args.ssl_keyfile:
        found.append(asyncio.create_task(refresh_tls(tls, args.ssl_certfile, args.ssl_keyfile)))
    return found


async def _start(server: "Server", sock: socket.socket) -> None:
    """Bring the engine up and say where it answers."""
    address = address_of(sock, "https" if server.args.ssl_certfile else "http")
    _log.info("Listening on %s, which answers 503 until the engine is ready.", address)
    choose("", server.args.tool_call_parser, server.engine_args.reasoning_parser)  # why: a wrong name ends it at once
    await server.front.start()
    gc.freeze()  # why: what is there now stays, and a full look at it would hold up every stream for tens of ms
    if server.engine_args.chat_template is not None and server.front.model.tokenizer is not None:
        from vllm.chat.template import template_text  # why: `serve --help` need not import a template engine

        # why: a file that is not there ends it here, and not at every chat
        template_text(server.front.model.tokenizer, server.engine_args.chat_template)
    _log.debug("%s", server.format)
    server.metrics.on_ready(server.front.model.ready)
    docs = "" if server.args.disable_fastapi_docs else f", its description at {address}/docs"
    names = ", ".join(server.names)
    _log.info("Ready: %s/v1 serves %s; the page for people is at %s/%s.", address, names, address, docs)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m vllm.entrypoints.openai.api_server --model X`; returns the exit status."""
    parser = FlexibleArgumentParser(prog="api_server", description="Serve a model over HTTP, with OpenAI's API.")
    add_server_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except ValueError as error:
        print(f"api_server: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
