"""Routes that steer the engine of a running server."""

import threading
import time
from pathlib import Path

import pytest

from tests.support.http_server import Running, serving, wait_for

COMPLETIONS = "/v1/completions"
ASKED = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
LONG = {"prompt": "Once upon a time", "max_tokens": 400, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    flags = "--max-model-len", "512", "--profiler-config", f'{{"torch_profiler_dir": "{folder}"}}'
    with serving(folder, *flags, VLLM_SERVER_DEV_MODE="1") as it:
        yield it


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """An engine that starts in a moment and only counts."""
    folder, program = tmp_path_factory.mktemp("quick"), "tests.fakes.counting_server"
    with serving(folder, program=program, VLLM_SERVER_DEV_MODE="1", FAKE_STEP_S="0.004") as it:
        yield it


def status(server: Running, path: str, body: object = None) -> int:
    return server.ask("GET" if path.startswith("/is_") else "POST", path, body)[0]


def text(server: Running, **asked) -> str:
    return server.post(COMPLETIONS, **asked)["choices"][0]["text"]


class Later:
    """A streamed answer, read in a thread."""

    def __init__(self, server: Running, **asked) -> None:
        self.pieces: list[str] = []
        self.reason = None
        self._thread = threading.Thread(target=self._run, args=(server, asked))
        self._thread.start()
        wait_for(lambda: len(self.pieces) > 3, 20, "a stream's beginning")

    def _run(self, server: Running, asked) -> None:
        for event in server.stream(COMPLETIONS, **asked):
            self.pieces.append(event["choices"][0]["text"])
            self.reason = event["choices"][0]["finish_reason"] or self.reason

    def end(self) -> str:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return "".join(self.pieces)


def test_a_sleeping_engine_is_gone_says_so_and_comes_back_the_same(server: Running):
    before, pid = text(server, **ASKED), server.engine_pid()
    assert status(server, "/sleep?level=1") == 200
    assert server.ask("GET", "/is_sleeping")[1] == {"is_sleeping": True}
    assert not Path(f"/proc/{pid}").exists()  # all memory is back, not only weights and cache
    code, told, headers = server.ask("POST", COMPLETIONS, ASKED)
    assert code == 503 and headers["retry-after"] and "/wake_up" in told["error"]["message"]
    assert server.ask("GET", "/health")[::2][0] == 503
    assert status(server, "/reset_prefix_cache") == 503
    states = [line for line in server.ask("GET", "/metrics")[1].splitlines() if "engine_sleep_state{" in line]
    assert [line[-3:] for line in states if 'sleep_state="weights_offloaded"' in line] == ["1.0"]
    assert [line[-3:] for line in states if 'sleep_state="awake"' in line] == ["0.0"]
    assert status(server, "/wake_up?tags=weights") == 200
    assert server.ask("GET", "/is_sleeping")[1] == {"is_sleeping": True}, "both, or none"
    assert status(server, "/wake_up?tags=kv_cache") == 200
    assert server.ask("GET", "/health")[0] == 200
    assert text(server, **ASKED) == before
    assert "died" not in server.log.read_text()


def test_what_becomes_of_open_streams_is_the_mode(quick: Running):
    whole = text(quick, **LONG)
    aborted, _ = Later(quick, **LONG), status(quick, "/sleep")
    assert whole.startswith(aborted.end()) and aborted.reason == "abort"
    assert status(quick, "/wake_up") == 200
    kept, _ = Later(quick, **LONG), status(quick, "/sleep?mode=keep")
    time.sleep(0.3)
    assert kept.reason is None
    assert status(quick, "/wake_up") == 200
    assert kept.end() == whole and kept.reason == "length"
    waited, _ = Later(quick, **LONG), status(quick, "/sleep?mode=wait")
    assert waited.end() == whole and waited.reason == "length"
    assert status(quick, "/wake_up") == 200


def test_a_pause_stops_tokens_and_holds_those_who_come(quick: Running):
    whole = text(quick, **LONG)
    kept, _ = Later(quick, **LONG), status(quick, "/pause?mode=keep")
    assert quick.ask("GET", "/is_paused")[1] == {"is_paused": True}
    time.sleep(0.2)
    num = len(kept.pieces)
    newcomer: list[str] = []
    thread = threading.Thread(target=lambda: newcomer.append(text(quick, **ASKED)))
    thread.start()
    time.sleep(0.5)
    assert len(kept.pieces) == num and not newcomer and quick.ask("GET", "/health")[0] == 200
    assert status(quick, "/resume") == 200
    assert kept.end() == whole
    thread.join(20)
    assert newcomer
    assert status(quick, "/pause") == 200 and status(quick, "/sleep?level=0") == 200 and status(quick, "/resume") == 200


def test_an_engine_that_dies_while_paused_loses_nothing(quick: Running):
    import os
    import signal

    whole = text(quick, **LONG)
    kept, _ = Later(quick, **LONG), status(quick, "/pause?mode=keep")
    pid = quick.engine_pid()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists() and quick.ask("GET", "/health")[0] == 200, 30, "a new engine")
    assert kept.reason is None
    assert status(quick, "/resume") == 200
    assert kept.end() == whole


def test_profiles_caches_and_calls(server: Running):
    assert status(server, "/start_profile?prefix=mine") == 200
    assert server.ask("POST", "/start_profile")[0] == 400
    text(server, **ASKED)
    [file] = [Path(server.ask("POST", "/stop_profile")[1]["file"])]
    assert file.name.startswith("mine.") and file.stat().st_size > 1000
    assert server.ask("POST", "/stop_profile")[1]["error"]["param"] == "stop_profile"
    for path in ("/reset_prefix_cache", "/reset_prefix_cache?reset_running_requests=true", "/reset_mm_cache"):
        assert status(server, path) == 200
    before = text(server, **ASKED)
    assert server.ask("POST", "/collective_rpc", {"method": "reload_weights"})[1] == {"results": [None]}
    assert text(server, **ASKED) == before
    got, told, _ = server.ask("POST", "/collective_rpc", {"method": "no_such"})
    assert got == 400 and "reload_weights" in told["error"]["message"]
    wrong = [{"method": "__class__"}, {"method": 1}, {}, {"method": "check_health", "args": {}}]
    wrong += [{"method": "check_health", "kwargs": {"method": 1}}, {"method": "check_health", "timeout": -1}]
    for body in wrong:
        assert server.ask("POST", "/collective_rpc", body)[0] == 400, body
    got, told, _ = server.ask("POST", "/collective_rpc", {"method": "reload_weights", "timeout": 0.0001})
    assert got == 500 and "reload_weights took more than 0.0001 seconds" in told["error"]["message"]
    for path in (
        "/sleep?level=3",
        "/sleep?mode=now",
        "/wake_up?tags=all",
        "/reset_prefix_cache?reset_running_requests=2",
    ):
        assert server.ask("POST", path)[0] == 400, path
    assert server.ask("GET", "/health")[0] == 200


def test_they_are_shut_unless_asked_for(tmp_path: Path):
    with serving(tmp_path, program="tests.fakes.counting_server", keys=()) as server:
        for path in ("/sleep", "/pause", "/collective_rpc", "/reset_prefix_cache"):
            got, told, _ = server.ask("POST", path)
            assert got == 404 and "VLLM_SERVER_DEV_MODE=1" in told["error"]["message"]
        assert "--profiler-config" in server.ask("POST", "/start_profile")[1]["error"]["message"]
        assert server.ask("GET", "/is_sleeping")[0] == 404
