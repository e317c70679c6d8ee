"""One engine process as the front's event loop sees it: its socket, its signs of life, its end.

Does not know: requests. Invariants: everything that the process sent before it ended is read before `ended` is done;
the process is reaped. Called by: client.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from vllm.engine.wire import Beat, Failed, Frames, Message, Ready
from vllm.util import env

PROGRAM = "vllm.entrypoints.engine_main"
SILENCE_S = 4.0
"""A ready engine that gives no sign of life for so long is taken for hung."""
STUCK_S = 300.0
"""A step that takes so long, while the process uses no processor time, is taken for hung."""
_PATIENCE_S = 5.0


class Child(asyncio.Protocol):
    """The engine process. Make it with `start`."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._frames = Frames()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._last_words = ""
        self._verdict = ""
        self._heard_at = self._looked_at = time.monotonic()
        self._busy_at, self._cpu_s = self._heard_at, -1.0
        self.is_ready = self.is_closed = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, words: Mapping[str, Any], on_message: Callable[[Message], None]) -> "Child":
        """Start a process for these engine arguments; it says Ready when it is."""
        ours, theirs = socket.socketpair()
        child = cls(on_message)
        with theirs:
            child._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=env.for_child(PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
            )
        assert child._process.stdin is not None
        with child._process.stdin as stdin:
            stdin.write(json.dumps(dict(words)).encode())
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: child, sock=ours)
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def send(self, commands: Sequence[bytes]) -> None:
        """Send commands, framed, in order."""
        if commands and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(commands))

    def look(self) -> None:
        """End the process if it hangs. Called about twice a second."""
        now = time.monotonic()
        if now - self._looked_at > SILENCE_S / 2:
            self._heard_at = now  # why: it was us who slept; let it speak first
        self._looked_at = now
        if not self.is_ready:
            return
        if now - self._heard_at > SILENCE_S:
            self.kill(f"it gave no sign of life for {SILENCE_S:g} seconds")
        elif now - self._busy_at > STUCK_S:
            self.kill(f"a step made no progress for {STUCK_S:g} seconds")

    def kill(self, verdict: str) -> None:
        """End the process at once; `verdict` is the cause that is told."""
        assert self._process is not None
        self._verdict = self._verdict or verdict
        self._process.kill()

    async def close(self) -> None:
        """End the process in peace: close the socket, wait a little, then kill it."""
        self.is_closed = True
        self._verdict = self._verdict or "it was shut down"
        if self._transport is not None:
            self._transport.close()
        await self._reap()

    async def cause(self) -> tuple[str, bool]:
        """After `ended`: why, and whether a signal from outside ended it."""
        code = await self._reap()
        if self._verdict or self._last_words:
            return self._verdict or self._last_words, False
        how = f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return how, code < 0

    async def _reap(self) -> int:
        assert self._process is not None
        try:
            return await asyncio.to_thread(self._process.wait, _PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)

    # ---- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # why: uvloop's transports are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._frames.feed(data)
        for message in self._frames.messages():
            if isinstance(message, Beat):
                if message.cpu_s - self._cpu_s > 0.1 or not message.step_s:
                    self._busy_at, self._cpu_s = self._heard_at, message.cpu_s
                continue
            if isinstance(message, Failed):
                self._last_words = message.cause
                continue
            self.is_ready = self.is_ready or isinstance(message, Ready)
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
