"""uvicorn, set up as we want it: bounded headers, our signals, our log.

Does not know: routes, engines. Called by: api_server.
"""

import contextlib
import logging
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vllm.config.server import ServerArgs
from vllm.entrypoints.openai.stream import PLAIN_SEND
from vllm.util.log import get_logger

MAX_HEAD = 64 * 2**10
"""Most bytes of a request line with its headers."""
_KEEP_ALIVE_S = 75


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose headers do not end."""

    _head_len = 0

    def data_received(self, data: bytes) -> None:
        """Bytes of a connection; those of a head that is not complete are counted."""
        self._head_len += len(data)
        super().data_received(data)
        if self._head_len > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's headers are too large.")

    def on_headers_complete(self) -> None:
        """The head is there; the body has limits of its own."""
        self._head_len = -(2**62)
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """The next request of a connection."""
        self._head_len = 0
        super().on_message_begin()


class HttpServer(uvicorn.Server):
    """uvicorn, with signals handled by whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def make_server(app: ASGIApp, args: ServerArgs) -> HttpServer:
    """A server for `app`; it gets its listening socket later."""
    _share_log(args.uvicorn_log_level, args.disable_access_log_for_endpoints)

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PLAIN_SEND] = send
        await app(scope, receive, send)

    return HttpServer(
        uvicorn.Config(
            told,
            http=BoundedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=not args.disable_uvicorn_access_log,
            root_path=args.root_path,
            ssl_keyfile=args.ssl_keyfile,
            ssl_certfile=args.ssl_certfile,
            ssl_ca_certs=args.ssl_ca_certs,
            ssl_cert_reqs=args.ssl_cert_reqs,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=args.shutdown_timeout,
            server_header=False,
            **({"ssl_ciphers": args.ssl_ciphers} if args.ssl_ciphers is not None else {}),
        )
    )


def _share_log(level: str, silent_paths: str) -> None:
    """uvicorn's lines come out where ours do."""
    get_logger(__name__)
    ours = logging.getLogger("vllm")
    for name in ("uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers[:] = ours.handlers
        theirs.propagate = not ours.handlers
        theirs.setLevel(5 if level == "trace" else level.upper())
    # why: what uvicorn says of its own start and end is said by us, with the addresses
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.levelno >= logging.WARNING)
    silent = {path.strip() for path in silent_paths.split(",") if path.strip()}
    if silent:
        # why: the third word of a line about a request is its path, query and all
        access = logging.getLogger("uvicorn.access")
        access.addFilter(lambda record: str((record.args or ("", "", ""))[2]).partition("?")[0] not in silent)
