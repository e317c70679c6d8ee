"""The server under load and with bad company: full queues, clients that do not read, many streams, long runs.

The engine behind it only counts (tests/fakes/counting.py), so what is measured here is the server's own.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.http_server import KEY, Running, serving, wait_for

FAKE = "tests.fakes.counting_server"
COMPLETIONS = "/v1/completions"
LONG = {"prompt": "Hello", "max_tokens": 4000, "ignore_eos": True}


def rss(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def num_files(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def numbers(server: Running) -> tuple[float, float]:
    """Sequences that run and that wait."""
    return server.metric("vllm:num_requests_running"), server.metric("vllm:num_requests_waiting")


def head(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire, up to its body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


@contextlib.contextmanager
def open_streams(server: Running, count: int, **more: object) -> Iterator[list[socket.socket]]:
    """Streams whose clients read nothing at all and have small windows."""
    body = json.dumps({**LONG, "stream": True, **more}).encode()
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(head(COMPLETIONS, body) + body)
            sockets.append(sock)
        yield sockets


@pytest.mark.parametrize(
    ("flags", "what"),
    [(("--max-num-queued-reqs", "3"), "requests"), (("--max-num-queued-tokens", "30"), "prompt tokens")],
)
def test_a_full_queue_refuses_and_says_when_to_come_again(tmp_path: Path, flags: tuple[str, ...], what: str) -> None:
    ten = list(range(100, 110))
    queue = ("--max-num-seqs", "2", *flags)
    with (
        serving(tmp_path, *queue, program=FAKE, FAKE_STEP_S="0.02") as server,
        open_streams(server, 2, prompt=ten) as first,
    ):
        wait_for(lambda: numbers(server) == (2, 0), 10, "two running streams")
        with open_streams(server, 3, prompt=ten):
            wait_for(lambda: numbers(server) == (2, 3), 10, "three in line")
            status, answer, headers = server.ask("POST", COMPLETIONS, {**LONG, "prompt": ten})
            assert (status, headers["retry-after"]) == (503, "2")
            assert f"Too many {what} wait" in answer["error"]["message"]
            assert server.ask("GET", "/health")[0] == 200
        wait_for(lambda: numbers(server) == (2, 0), 10, "the end of those in line")
        for sock in first:
            sock.close()
        wait_for(lambda: numbers(server) == (0, 0), 10, "the end of all")
        # why: a prompt longer than the limit must not be refused for ever
        assert server.post(COMPLETIONS, prompt=ten * 5, max_tokens=1)["usage"]["prompt_tokens"] == 50
        with open_streams(server, 3, prompt=ten):
            wait_for(lambda: numbers(server) == (2, 1), 10, "one in line")
            assert server.ask("POST", COMPLETIONS, {"prompt": [ten] * 8, "max_tokens": 1})[0] == 503


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("server"), program=FAKE) as running:
        yield running


def test_clients_that_do_not_read_hold_neither_the_others_nor_the_engine(server: Running) -> None:
    list(server.stream(COMPLETIONS, **{**LONG, "max_tokens": 500}, n=8))
    before = rss(server.process.pid)
    with open_streams(server, 4, n=8):
        wait_for(lambda: server.ask("GET", "/load")[1] == {"server_load": 4}, 10, "four streams")
        began = time.monotonic()
        assert server.post(COMPLETIONS, prompt="Hello", max_tokens=100, ignore_eos=True)["usage"]["completion_tokens"]
        assert time.monotonic() - began < 20
        # why: the engine ends them all the same; what their clients have not read is the server's to keep
        wait_for(lambda: numbers(server) == (0, 0), 60, "the end of streams that nobody reads")
        held = (rss(server.process.pid) - before) / (4 * 8 * 4000)
        print(f"a token that nobody reads holds {held:.0f} bytes")
        assert held < 400
    wait_for(lambda: server.ask("GET", "/load")[1] == {"server_load": 0}, 10, "the end of streams whose clients left")


def test_what_is_not_wanted_any_more_leaves_the_engine_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, program=FAKE, FAKE_STEP_S="0.05") as server:
        with open_streams(server, 5, request_id="mine"):
            wait_for(lambda: numbers(server)[0] == 5, 10, "five running streams")
            server.post("/abort_requests", request_ids=["mine"])
            wait_for(lambda: numbers(server) == (0, 0), 2, "the end of aborted streams")
        with open_streams(server, 5) as sockets:
            wait_for(lambda: numbers(server)[0] == 5, 10, "five running streams")
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not a farewell
                sock.close()
            wait_for(lambda: numbers(server) == (0, 0), 2, "the end of left streams")
        assert server.metric("vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_no_death_of_the_server_leaves_an_engine(tmp_path: Path, number: int) -> None:
    with serving(tmp_path, "--shutdown-timeout", "1", program=FAKE, FAKE_STEP_S="0.05") as server:
        engine = server.engine_pid()
        with open_streams(server, 2):
            wait_for(lambda: numbers(server)[0] == 2, 10, "two running streams")
            server.process.send_signal(number)
            server.process.wait(20)
            wait_for(lambda: not Path(f"/proc/{engine}/cmdline").exists(), 5, "the engine's end")


@pytest.mark.slow
def test_a_stopped_engine_is_found_and_replaced_within_ten_seconds(tmp_path: Path) -> None:
    with serving(tmp_path, program=FAKE, FAKE_STEP_S="0.02") as server, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(lambda: list(server.stream(COMPLETIONS, **{**LONG, "max_tokens": 400}))) for _ in range(8)]
        wait_for(lambda: numbers(server)[0] == 8, 20, "eight running streams")
        stopped = server.engine_pid()
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        wait_for(lambda: "gave no sign of life" in server.log.read_text(), 20, "the verdict")
        found = time.monotonic() - began
        told = server.metric("vllm:generation_tokens_total")
        wait_for(lambda: server.metric("vllm:generation_tokens_total") > told + 8, 20, "streams that go on")
        mended = time.monotonic() - began
        print(f"\nstopped: found after {found:.1f} s, streams on after {mended:.1f} s")
        assert mended < 10
        for call in calls:
            text = "".join(event["choices"][0]["text"] for event in call.result(60) if event["choices"])
            assert text == "".join(event["choices"][0]["text"] for event in calls[0].result(60) if event["choices"])
        assert not Path(f"/proc/{stopped}/cmdline").exists()


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_step_that_computes_for_a_minute_is_not_taken_for_a_hang(tmp_path: Path) -> None:
    with serving(tmp_path, program=FAKE, FAKE_BUSY_S="60") as server, ThreadPoolExecutor(1) as pool:
        engine, began = server.engine_pid(), time.monotonic()
        call = pool.submit(lambda: list(server.stream(COMPLETIONS, **{**LONG, "max_tokens": 5})))
        while not call.done():
            assert server.ask("GET", "/health")[0] == 200
            time.sleep(1)
        assert call.result()
        assert server.engine_pid() == engine and time.monotonic() - began > 60
        assert "engine died" not in server.log.read_text()


async def read_stream(port: int, body: bytes) -> tuple[int, float]:
    """(tokens by its own count, seconds to the first text) of one stream that must succeed and end."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head("/v1/chat/completions", body) + body)
        assert b"200" in await reader.readline()
        first, count, is_done = 0.0, 0, False
        async for line in reader:
            if not first and b'"content":"' in line and b'"content":""' not in line:
                first = time.monotonic() - began
            if b'"completion_tokens":' in line:
                count = json.loads(line[6:])["usage"]["completion_tokens"]
            if line.startswith(b"data: [DONE]"):
                is_done = True
                break
        assert is_done, "the stream broke off"
        return count, first
    finally:
        writer.close()


def chat(max_tokens: int) -> bytes:
    messages = [{"role": "user", "content": "Count."}]
    asked = {"messages": messages, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0}
    return json.dumps({**asked, "stream": True, "stream_options": {"include_usage": True}}).encode()


@pytest.mark.slow
def test_a_thousand_streams_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-num-seqs", "1024", program=FAKE) as server:
        pid, port = server.process.pid, server.port

        async def scenario() -> list[tuple[int, float]]:
            return await asyncio.gather(*(read_stream(port, chat(100)) for _ in range(1000)))

        with ThreadPoolExecutor(1) as pool:
            before, began = rss(pid), time.monotonic()
            running = pool.submit(asyncio.run, scenario())
            most_files = most_rss = 0
            while not running.done():
                most_files, most_rss = max(most_files, num_files(pid)), max(most_rss, rss(pid))
                time.sleep(0.05)
            took, told = time.monotonic() - began, running.result()
        firsts = sorted(first for _, first in told)
        print(
            f"\n1,000 streams x 100 tokens: {took:.1f} s, first token p50 {firsts[500]:.2f} s p99 {firsts[990]:.2f} s, "
            f"{most_files} descriptors, +{(most_rss - before) / 2**20:.0f} MiB at most"
        )
        assert [count for count, _ in told] == [100] * 1000
        assert most_files >= 1000
        assert most_rss - before < 300 * 2**20
        wait_for(lambda: num_files(pid) < 100, 10, "closed connections")


@pytest.mark.slow
def test_a_long_run_does_not_grow(tmp_path: Path) -> None:
    total, at_once = int(os.environ.get("SOAK_REQUESTS", "100000")), 64
    with serving(tmp_path, program=FAKE) as server:
        pids = server.process.pid, server.engine_pid()

        async def client(count: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for i in range(count):
                body = json.dumps(
                    {"prompt": f"Request {i % 977}", "max_tokens": 1 + i % 4, "user": f"{i % 50}"}
                ).encode()
                writer.write(head(COMPLETIONS, body) + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200"), answer
                length = answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
            writer.close()

        async def some(count: int) -> None:
            await asyncio.gather(*(client(count // at_once) for _ in range(at_once)))

        began = time.monotonic()
        asyncio.run(some(total // 5))  # why: caches fill and the allocator finds its size
        before = [(rss(pid), num_files(pid)) for pid in pids]
        asyncio.run(some(total - total // 5))
        time.sleep(1)
        after = [(rss(pid), num_files(pid)) for pid in pids]
        told = ", ".join(
            f"{who} {b[0] / 2**20:.1f} to {a[0] / 2**20:.1f} MiB and {b[1]} to {a[1]} descriptors"
            for who, b, a in zip(("front", "engine"), before, after, strict=True)
        )
        print(f"\n{total} requests in {time.monotonic() - began:.0f} s: {told}")
        assert numbers(server) == (0, 0)
        assert server.metric("vllm:kv_cache_usage_perc") == 0
        for b, a in zip(before, after, strict=True):
            assert a[0] - b[0] < 4 * 2**20, told
            assert a[1] <= b[1] + 2, told
