"""A real server on a free loopback port, and a client of few lines for it."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "a-key-of-the-tests"


@dataclass
class Running:
    """A server that is ready."""

    process: subprocess.Popen
    port: int
    log: Path

    def ask(self, method: str, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, Any, dict[str, str]]:
        """(status, JSON or text, headers) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, {"Authorization": f"Bearer {key}"} if key else {})
            answer = connection.getresponse()
            text = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        is_json = headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text.decode(), headers

    def post(self, path: str, **body: Any) -> Any:
        """The JSON of a request that must succeed."""
        status, answer, _ = self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    def stream(self, path: str, **body: Any) -> Iterator[dict[str, Any]]:
        """The events of a stream that must succeed and end with [DONE]."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = json.dumps({**body, "stream": True}).encode()
            connection.request("POST", path, data, {"Authorization": f"Bearer {KEY}"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            is_done = False
            for line in answer:
                if not line.startswith(b"data: "):
                    assert line == b"\n", line
                    continue
                assert not is_done, "an event after [DONE]"
                is_done = line == b"data: [DONE]\n"
                if not is_done:
                    yield json.loads(line[6:])
            assert is_done, "the stream broke off"
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The value of a metric without labels of its own."""
        _, text, _ = self.ask("GET", "/metrics")
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{{"))

    def engine_pid(self) -> int:
        """The process id of the engine."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = (int(word) for task in tasks for word in task.read_text().split())
        programs = b"engine_main", b"tests.fakes.counting\0"
        return next(
            pid for pid in children if any(name in Path(f"/proc/{pid}/cmdline").read_bytes() for name in programs)
        )


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Wait until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)


@contextmanager
def serving(
    folder: Path, *flags: str, keys: tuple[str, ...] = (KEY,), program: str = "vllm.entrypoints.cli.main", **more: str
) -> Iterator[Running]:
    """Start a server on a free port, wait until it is ready, end it with SIGTERM. `more` goes into its environment."""
    log = folder / "server.log"
    words = [sys.executable, "-m", program, "serve", "--port", "0", *flags]
    words += [*(["--api-key", *keys] if keys else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    with log.open("w") as out:
        process = subprocess.Popen(words, stderr=out, stdout=out, env=environment)
    try:
        wait_for(lambda: "Ready: " in log.read_text() or process.poll() is not None, 60, "readiness")
        assert process.poll() is None, log.read_text()
        port = int(log.read_text().split("://127.0.0.1:")[1].split(",")[0])
        yield Running(process, port, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
