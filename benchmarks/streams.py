"""What streaming costs the server: chat streams over real HTTP on loopback, in front of an engine that only counts.

    python -m benchmarks.streams [--streams 200] [--tokens 200] [--step-ms 8] [--profile FILE]

The server's process has one core for itself; the engine and this client share the others. `paced` gives every stream
one token per step, so nearly every token is an event of its own; `flat out` lets the engine run as fast as it can, so
that the server is what limits. Prints JSON lines: tokens/s by the clock, the server's own processor time per token, and
tokens per event. The yardstick: 20,000 streamed chat tokens/s on one core.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.http_server import KEY, Running, serving

GOAL = 20_000


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, all its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


class Reader(asyncio.Protocol):
    """One stream: counts its events and remembers when they came; parses nothing, so that the client costs little."""

    def __init__(self, request: bytes) -> None:
        self._request, self._tail = request, b""
        self.num_events = 0
        self.first_at = self.last_at = 0.0
        self.text = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.last_at = time.perf_counter()
        self.num_events += data.count(b'"content":"')
        if not self.first_at and self.num_events:
            self.first_at = self.last_at
        self._tail = (self._tail + data)[-600:]
        if b"data: [DONE]" in self._tail:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    @property
    def num_tokens(self) -> int:
        """Tokens by the server's own count at the end of the stream."""
        said = self._tail.rpartition(b'"completion_tokens":')[2].split(b",")[0]
        return int(said) if said.isdigit() else 0


def request(num_tokens: int) -> bytes:
    """A chat stream as it goes over the wire."""
    body = {
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


@dataclass
class Steady:
    """What happened from the moment that all streams had begun to the end of the last."""

    tokens: int
    events: int
    seconds: float
    server_s: float
    """Processor time of the server."""
    begun_s: float
    """How long the streams took to begin."""


async def load(server: Running, num_streams: int, num_tokens: int) -> Steady:
    """Open all streams at once and read them to their ends."""
    loop, opened = asyncio.get_running_loop(), time.perf_counter()
    readers = [
        (await loop.create_connection(lambda: Reader(request(num_tokens)), "127.0.0.1", server.port))[1]
        for _ in range(num_streams)
    ]
    while not all(reader.first_at for reader in readers):
        await asyncio.sleep(0.01)
    known = await asyncio.to_thread(server.metric, "vllm:generation_tokens_total")
    events = sum(reader.num_events for reader in readers)
    used, began = cpu_s(server.process.pid), time.perf_counter()
    await asyncio.gather(*(reader.done for reader in readers))
    used = cpu_s(server.process.pid) - used
    told = [reader.num_tokens for reader in readers]
    assert told == [num_tokens] * num_streams, told
    all_events = sum(reader.num_events for reader in readers)
    after = await asyncio.to_thread(server.metric, "vllm:generation_tokens_total")
    ended = max(reader.last_at for reader in readers)
    # why: an engine without steps may have given all its tokens before the last stream began
    tokens, num_events = max(1, int(after - known)), max(1, all_events - events)
    return Steady(tokens, num_events, max(1e-6, ended - began), max(1e-6, used), began - opened)


def measure(name: str, num_streams: int, num_tokens: int, step_s: float, profile: str = "") -> dict[str, object]:
    """One load on a fresh server."""
    cores = sorted(os.sched_getaffinity(0))
    mine = set(cores[1:]) or set(cores)
    flags = "--max-num-seqs", str(num_streams)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(
            Path(folder), *flags, program="tests.fakes.counting_server", FAKE_STEP_S=str(step_s), FAKE_PROFILE=profile
        ) as server,
    ):
        pid = server.process.pid
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {cores[0]})
        os.sched_setaffinity(server.engine_pid(), mine)
        os.sched_setaffinity(0, mine)
        asyncio.run(load(server, 10, 20))
        found = asyncio.run(load(server, num_streams, num_tokens))
        os.sched_setaffinity(0, cores)
    return {
        "load": name,
        "streams": num_streams,
        "tokens": found.tokens,
        "tokens_per_s": round(found.tokens / found.seconds),
        "server_us_per_token": round(1e6 * found.server_s / found.tokens, 1),
        "tokens_per_server_s": round(found.tokens / found.server_s),
        "tokens_per_event": round(found.tokens / found.events, 2),
        "begun_s": round(found.begun_s, 2),
    }


def main() -> int:
    """Print the lines; 1 when the yardstick is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--step-ms", type=float, default=8.0)
    parser.add_argument("--profile", default="", help="write cProfile's figures of the server's event loop here")
    parser.add_argument("--only", choices=("paced", "flat out"))
    args = parser.parse_args()
    rows = []
    for name, step_s in (("paced", args.step_ms / 1e3), ("flat out", 0.0)):
        if args.only in (None, name):
            rows.append(measure(name, args.streams, args.tokens if step_s else 1500, step_s, args.profile))
            print(json.dumps(rows[-1]), flush=True)
    return int(any(row["tokens_per_server_s"] < GOAL for row in rows))


if __name__ == "__main__":
    sys.exit(main())
