"""A client that many requests share: HTTP/1.1 over asyncio, connections kept open, bodies as they arrive.

For: `vllm bench serve`, where the client must cost little beside the server. Does not know: what a body means.
Invariant: a connection goes back to the pool only after its answer was read to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import httptools

from vllm.errors import ValidationError

_CHUNK = 1 << 16


class HttpError(Exception):
    """The server said no, or broke off."""


class _Answer:
    """Callbacks of the parser: what has arrived of one answer."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.is_whole = False
        self.has_length = self.is_closing = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.has_length |= name.lower() in (b"content-length", b"transfer-encoding")
        self.is_closing |= name.lower() == b"connection" and value.lower() == b"close"

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True


class Connections:
    """Open connections to one server."""

    def __init__(self, base_url: str, headers: dict[str, str], *, insecure: bool = False) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValidationError.of("base_url", base_url, "an address such as http://127.0.0.1:8000")
        self.base_url = base_url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = _context(insecure) if parts.scheme == "https" else None
        host = parts.netloc.rpartition("@")[2]
        lines = [f"{name}: {value}" for name, value in {"Host": host, **headers}.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValidationError("header: a name or value holds a line break.", field="header")
        self._head = "\r\n".join(lines)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: bytes | None = None) -> AsyncGenerator[bytes, None]:
        """The parts of the body as they arrive. Raises HttpError for any status but 200, OSError for a lost one."""
        reader, writer, was_used = await self._connection()
        try:
            await self._send(writer, method, path, body)
            first = await reader.read(_CHUNK)
            if not first and was_used:  # the server closed it while it was idle: that is no failure of this request
                writer.close()
                reader, writer = await self._open()
                await self._send(writer, method, path, body)
                first = await reader.read(_CHUNK)
            answer, status = _Answer(), 0
            parser = httptools.HttpResponseParser(answer)
            refused = b""
            data = first
            while True:
                if not data and (answer.has_length or not status):
                    raise HttpError("the server broke off")
                parser.feed_data(data)
                status = parser.get_status_code() or status
                parts, answer.parts = b"".join(answer.parts), []
                if status != 200:
                    refused += parts
                elif parts:
                    yield parts
                if answer.is_whole or not data:
                    break
                data = await reader.read(_CHUNK)
            if answer.is_whole and answer.has_length and not answer.is_closing:
                self._idle.append((reader, writer))
                writer = None  # type: ignore[assignment]
            if status != 200:
                raise HttpError(f"{status}: {refused.decode('utf-8', 'replace')[:500]}")
        except httptools.HttpParserError as error:
            raise HttpError(f"not HTTP: {error}") from None
        finally:
            if writer is not None:
                writer.close()

    async def whole(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The whole body."""
        return b"".join([part async for part in self.ask(method, path, body)])

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer, True
            writer.close()
        return *await self._open(), False

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port, ssl=self._ssl)

    async def _send(self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes | None) -> None:
        extra = f"\r\nContent-Length: {len(body)}\r\nContent-Type: application/json" if body is not None else ""
        writer.write(f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}{extra}\r\n\r\n".encode() + (body or b""))
        await writer.drain()


def _context(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
