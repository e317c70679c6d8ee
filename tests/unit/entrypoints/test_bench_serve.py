"""`vllm bench serve` against a server whose latencies are known, and its arithmetic on outcomes written down."""

import asyncio
import itertools
import json
import subprocess
import sys
import threading

import pytest

from vllm.entrypoints.bench.asking import Outcome
from vllm.entrypoints.bench.figures import percentile, summarize, table
from vllm.entrypoints.bench.serve import arrivals
from vllm.entrypoints.cli.main import main

FIRST, BETWEEN, TOKENS = 0.06, 0.02, 6


class FakeServer:
    """Streams TOKENS tokens, the first after FIRST seconds, the others BETWEEN apart; counts what it was asked."""

    def __init__(self):
        self.bodies, self.open, self.most, self.paths = [], 0, 0, []
        self.connections = 0
        self.fails = lambda number: False
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    async def _run(self):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.ended.wait()
        server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)
                body = await reader.readexactly(length)
                await self._answer(head.decode().split()[1], body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path, body, writer):
        if path == "/v1/models":
            data = json.dumps({"data": [{"id": "fake", "root": "builtin"}]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
            return
        self.paths.append(path)
        self.bodies.append(json.loads(body))
        if self.fails(len(self.bodies)):
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
            return
        self.open += 1
        self.most = max(self.most, self.open)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
        is_chat = "chat" in path
        if is_chat:
            self._send(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for i in range(TOKENS):
            await asyncio.sleep(BETWEEN if i else FIRST)
            part = {"delta": {"content": "a"}} if is_chat else {"text": "a"}
            self._send(writer, {"choices": [{**part, "finish_reason": None if i < TOKENS - 1 else "length"}]})
        self._send(writer, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": TOKENS}})
        self._write(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        self.open -= 1

    def _send(self, writer, event):
        self._write(writer, b"data: " + json.dumps(event).encode() + b"\n\n")

    def _write(self, writer, data):
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def close(self):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join(5)


@pytest.fixture
def server():
    made = FakeServer()
    yield made
    made.close()


def bench(server, folder, *flags):
    """The exit status, and the saved figures."""
    words = [
        "bench",
        "serve",
        "--port",
        str(server.port),
        "--random-input-len",
        "8",
        "--random-output-len",
        str(TOKENS),
    ]
    status = main([*words, "--save-result", "--result-dir", str(folder), "--result-filename", "r.json", *flags])
    return status, json.loads((folder / "r.json").read_text())


@pytest.mark.parametrize("backend", ["openai", "vllm", "openai-chat"])
def test_the_figures_are_those_of_the_server(server, tmp_path, capsys, backend):
    status, got = bench(server, tmp_path, "--backend", backend, "--num-prompts", "8", "--max-concurrency", "4")
    assert status == 0 and got["completed"] == 8 and got["failed"] == 0
    assert got["total_output_tokens"] == 8 * TOKENS
    slack = 60  # ms; a busy machine may be late, never early
    assert FIRST * 1e3 <= got["median_ttft_ms"] <= FIRST * 1e3 + slack
    assert BETWEEN * 1e3 * 0.95 <= got["mean_tpot_ms"] <= BETWEEN * 1e3 + slack
    assert BETWEEN * 1e3 * 0.8 <= got["median_itl_ms"] <= BETWEEN * 1e3 + slack
    whole = FIRST + (TOKENS - 1) * BETWEEN
    assert 2 * whole <= got["duration"] <= 2 * whole + 1
    assert got["output_throughput"] == pytest.approx(8 * TOKENS / got["duration"])
    assert got["max_concurrent_requests"] == server.most == 4
    assert server.connections <= 5, "connections are used again"
    assert len(server.bodies) == 9, "one trial request is made before"
    printed = capsys.readouterr().out
    for words in ("Serving Benchmark Result", "Successful requests:", "Mean TTFT (ms):", "P99 ITL (ms):"):
        assert words in printed


def test_what_is_sent(server, tmp_path):
    flags = ("--temperature", "0", "--ignore-eos", "--extra-body", '{"min_tokens": 3}', "--metadata", "who=me")
    status, got = bench(server, tmp_path, "--num-prompts", "3", *flags)
    assert status == 0 and got["who"] == "me" and got["model_id"] == "fake"
    body = server.bodies[-1]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("fake", TOKENS, 0.0)
    assert body["ignore_eos"] is True and body["min_tokens"] == 3 and isinstance(body["prompt"], str)
    assert len({b["prompt"] for b in server.bodies}) == 3


def test_failures_are_counted_and_told(server, tmp_path, capsys):
    server.fails = lambda number: number % 2 == 0
    status, got = bench(server, tmp_path, "--num-prompts", "4", "--skip-tokenizer-init")
    assert status == 1 and (got["completed"], got["failed"]) == (2, 2)
    assert "503: busy" in capsys.readouterr().out
    assert isinstance(server.bodies[0]["prompt"], list) and len(server.bodies[0]["prompt"]) == 8


def test_conversations_of_a_file(server, tmp_path):
    talk = [{"value": "What is the capital of France, and why?"}, {"value": "Paris, for a long time already."}]
    file = tmp_path / "talks.json"
    file.write_text(json.dumps([{"conversations": talk}, {"conversations": talk[:1]}]))
    status, got = bench(
        server, tmp_path, "--dataset-name", "sharegpt", "--dataset-path", str(file), "--goodput", "e2el:1"
    )
    assert status == 0 and got["completed"] == 1 and got["request_goodput"] == 0
    assert server.bodies[-1]["prompt"] == talk[0]["value"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--request-rate", "0"], "request_rate"),
        (["--percentile-metrics", "ttft,speed"], "percentile_metrics"),
        (["--dataset-name", "sharegpt"], "dataset_path"),
        (["--num-prompts", "0"], "num_prompts"),
        (["--tokenizer", "/nowhere/at/all"], "--tokenizer"),
        (["--goodput", "ttft"], "goodput"),
    ],
)
def test_bad_flags_are_named(server, capsys, flags, words):
    assert main(["bench", "serve", "--port", str(server.port), *flags]) == 2
    assert words in capsys.readouterr().err


def test_no_server(capsys):
    assert main(["bench", "serve", "--port", "9", "--model", "builtin", "--skip-tokenizer-init"]) == 2
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_arithmetic():
    one = Outcome(10, 3, began=1.0, ended=2.0, moments=[1.2, 1.6, 2.0])
    two = Outcome(20, 1, began=1.5, ended=1.8, moments=[1.8])
    lost = Outcome(30, began=1.0, error="no")
    got = summarize([one, two, lost], 2.0, {"ttft": 250.0}, [99.0])
    assert (got["completed"], got["failed"], got["total_input_tokens"], got["total_output_tokens"]) == (2, 1, 30, 4)
    assert (got["request_throughput"], got["output_throughput"], got["total_token_throughput"]) == (1.0, 2.0, 17.0)
    assert got["mean_ttft_ms"] == pytest.approx(250) and got["mean_tpot_ms"] == pytest.approx(400)
    assert got["mean_itl_ms"] == pytest.approx(400) and got["p99_ttft_ms"] == pytest.approx(299)
    assert got["request_goodput"] == 0.5 and got["max_concurrent_requests"] == 2
    assert f"{'Total token throughput (tok/s):':<40} 17.00" in table(got, ["ttft", "itl"], [99.0])
    assert [percentile([3, 1, 2], p) for p in (0, 50, 75, 100)] == [1, 2, 2.5, 3]


def test_arrivals_keep_the_rate():
    assert arrivals(3, float("inf"), 1.0, 0) == [0.0] * 3
    even, bursty = arrivals(1000, 10.0, 1e6, 0), arrivals(1000, 10.0, 0.1, 0)
    assert even[-1] == pytest.approx(100) and bursty[-1] == pytest.approx(100)
    assert even == sorted(even) and arrivals(9, 1.0, 1.0, 1) == arrivals(9, 1.0, 1.0, 1)

    def spread(moments):
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        return sum((g - 0.1) ** 2 for g in gaps) / len(gaps)

    assert spread(even) < 1e-6 < 0.01 < spread(bursty)


def test_no_torch(server):
    code = (
        "import sys; from vllm.entrypoints.cli.main import main;"
        f"main(['bench', 'serve', '--port', '{server.port}', '--num-prompts', '1', '--random-input-len', '4']);"
        "assert not {'torch', 'transformers', 'triton'} & set(sys.modules), 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
