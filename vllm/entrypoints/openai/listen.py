"""The listening socket of a server, and its TLS files. Does not know: HTTP. Called by: api_server."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from pathlib import Path

from vllm.config.listen import ListenArgs
from vllm.errors import ValidationError
from vllm.util.log import get_logger

_log = get_logger("vllm.server")
LOOK_S = 10.0


def listen(args: ListenArgs) -> socket.socket:
    """The bound socket. ValidationError when the address cannot be had."""
    where = args.uds if args.uds is not None else f"{args.host}:{args.port}"
    try:
        return _unix(args.uds) if args.uds is not None else _tcp(args.host, args.port)
    except OSError as error:
        field = "port" if args.uds is None else "uds"
        reason = error.strerror or str(error)
        remedy = f"Choose another with --{field}."
        if error.errno == errno.EACCES and args.uds is None:
            remedy = "Ports below 1024 belong to root; choose another with --port."
        raise ValidationError(f"cannot listen on {where}: {reason}.", field=field, remedy=remedy) from None


def _tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(path: str) -> socket.socket:
    """A socket file that only its owner may use; one that nobody listens on any more is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and sock.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)
            sock.close()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket, scheme: str) -> str:
    """Where a client finds the server."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def check_tls_files(args: ListenArgs) -> None:
    """ValidationError that names the first TLS file that cannot be read, and why."""
    named = {"ssl_certfile": args.ssl_certfile, "ssl_keyfile": args.ssl_keyfile, "ssl_ca_certs": args.ssl_ca_certs}
    for field, path in named.items():
        try:
            if path is not None:
                open(path, "rb").close()
        except OSError as error:
            who = "Let the user who runs the server read it." if error.errno == errno.EACCES else None
            raise ValidationError(f"{field} {path}: {error.strerror}.", field=field, value=path, remedy=who) from None


async def refresh_tls(context: ssl.SSLContext, certfile: str, keyfile: str) -> None:
    """Read the TLS files again whenever one of them changes; new connections use them. Never returns."""
    seen = _stamps(certfile, keyfile)
    while True:
        await asyncio.sleep(LOOK_S)
        now = _stamps(certfile, keyfile)
        if now == seen:
            continue
        try:
            context.load_cert_chain(certfile, keyfile)
            _log.info("The TLS files have changed and were read again.")
        except (OSError, ssl.SSLError) as error:
            _log.error("The TLS files have changed, but cannot be used (%s); the old ones stay.", error)
        seen = now


def _stamps(*files: str) -> list[int]:
    with contextlib.suppress(OSError):
        return [Path(file).stat().st_mtime_ns for file in files]
    return []
