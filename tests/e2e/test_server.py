"""A real server with the built-in model: answers, streams, errors, and what it survives."""

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.http_server import KEY, Running, serving, wait_for
from tests.support.opt_folder import write_opt

PROMPT = "The capital of France is"
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SAMPLED = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0.9, "seed": 7, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), "--deterministic", "--served-model-name", "tiny", "also") as it:
        yield it


def texts(answer: dict) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def gather(events, part=lambda choice: choice["text"]) -> dict[int, str]:
    """The text of each choice of a stream."""
    out: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            out[choice["index"]] = out.get(choice["index"], "") + (part(choice) or "")
    return out


def test_doors(server: Running):
    assert server.ask("GET", "/health", key=None)[0] == 200
    assert server.ask("GET", "/ping", key=None)[0] == 200
    status, models, _ = server.ask("GET", "/v1/models")
    assert status == 200
    assert [card["id"] for card in models["data"]] == ["tiny", "also"]
    assert server.ask("GET", "/v1/models/also")[1]["id"] == "also"
    assert server.ask("GET", "/load")[1] == {"server_load": 0}
    assert set(server.ask("GET", "/version")[1]) == {"version"}
    assert "127.0.0.1" in server.log.read_text()


@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/metrics", "/tokenize", "/version", "//v1/models"])
def test_a_key_is_needed(server: Running, path: str):
    method = "POST" if path in ("/v1/completions", "/tokenize") else "GET"
    for key in (None, "wrong", KEY[:-1], KEY + "x"):
        status, answer, _ = server.ask(method, path, b"{}" if method == "POST" else None, key=key)
        assert status == (404 if path.startswith("//") else 401), answer


def test_prompts_of_all_forms(server: Running):
    ids = server.post("/tokenize", prompt=PROMPT)["tokens"]
    assert server.post("/detokenize", tokens=ids)["prompt"] == PROMPT
    asked = {"max_tokens": 6, "temperature": 0}
    [alone] = texts(server.post("/v1/completions", prompt=PROMPT, **asked))
    assert " Paris" in alone
    for prompt in ([PROMPT, PROMPT], [ids, ids]):
        assert texts(server.post("/v1/completions", prompt=prompt, **asked)) == [alone, alone]
    whole = server.post("/v1/completions", prompt=ids, echo=True, **asked)
    assert texts(whole) == [PROMPT + alone]
    assert whole["usage"]["prompt_tokens"] == len(ids)
    assert whole["model"] == "tiny"


def test_echo_with_logprobs_scores_the_prompt(server: Running):
    answer = server.post("/v1/completions", prompt=PROMPT, echo=True, max_tokens=0, logprobs=1, temperature=0)
    scored = answer["choices"][0]["logprobs"]
    assert "".join(scored["tokens"]) == PROMPT == texts(answer)[0]
    assert scored["token_logprobs"][0] is None
    assert all(value <= 0 for value in scored["token_logprobs"][1:])
    assert all(len(top) in (1, 2) for top in scored["top_logprobs"][1:])
    assert scored["text_offset"] == [PROMPT.index(token) for token in scored["tokens"]]
    assert answer["usage"]["completion_tokens"] == 0


def test_a_stream_is_the_whole(server: Running):
    for extra in ({}, {"n": 3}, {"stop": [" a"]}, {"echo": True, "logprobs": 2}):
        asked = {**SAMPLED, **extra}
        whole = server.post("/v1/completions", **asked)
        events = list(server.stream("/v1/completions", **asked, stream_options={"include_usage": True}))
        assert gather(events) == dict(enumerate(texts(whole)))
        assert events[-1]["choices"] == []
        assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
        ends = {c["index"]: c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]}
        assert ends == {c["index"]: c["finish_reason"] for c in whole["choices"]}
        if "logprobs" in extra:
            pieces = [token for e in events for c in e["choices"] for token in c["logprobs"]["tokens"]]
            assert pieces == whole["choices"][0]["logprobs"]["tokens"]


def test_chat(server: Running):
    asked = {"messages": MESSAGES, "max_tokens": 20, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = server.post("/v1/chat/completions", **asked)
    [choice] = whole["choices"]
    assert "Paris" in choice["message"]["content"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    assert all(len(token["top_logprobs"]) == 2 for token in choice["logprobs"]["content"])
    events = list(server.stream("/v1/chat/completions", **asked, stream_options={"continuous_usage_stats": True}))
    assert gather(events, lambda c: c["delta"].get("content")) == {0: choice["message"]["content"]}
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["usage"] == whole["usage"]
    streamed = [
        token for e in events if e["choices"][0]["logprobs"] for token in e["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == choice["logprobs"]["content"]


COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


SCHEMA = "response_format.json_schema.schema"


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (COMPLETIONS, b"{", 400, None),
        (COMPLETIONS, b"[]", 400, None),
        (COMPLETIONS, b"[" * 100_000, 400, None),
        (COMPLETIONS, b"\xff", 400, None),
        (COMPLETIONS, {}, 400, "prompt"),
        (COMPLETIONS, {"prompt": 5}, 400, "prompt"),
        (COMPLETIONS, {"prompt": ""}, 400, "prompt"),
        (COMPLETIONS, {"prompt": []}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [[]]}, 400, "prompts[0]"),
        (COMPLETIONS, {"prompt": [-1]}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [10**9]}, 400, "prompt_token_ids"),
        (COMPLETIONS, {"prompt": ["a"] * 1025}, 400, "prompt"),
        (COMPLETIONS, {"prompt": "a " * 5000}, 400, "prompt"),
        (COMPLETIONS, {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "temperature": 3}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "top_p": 0}, 400, "top_p"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, 400, "n"),
        (COMPLETIONS, {"prompt": "a", "n": 10**6}, 400, "n"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 1000}, 400, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, 400, "suffix"),
        (COMPLETIONS, {"prompt": "a", "best_of": 4}, 400, "best_of"),
        (COMPLETIONS, {"prompt": "a", "structured_outputs": {"regex": "(a"}}, 400, "structured_outputs"),
        (COMPLETIONS, {"prompt": "a", "response_format": {"type": "yaml"}}, 400, "response_format.type"),
        (COMPLETIONS, {"prompt": "a", "structured_outputs": {"json": True}}, 400, "structured_outputs.json"),
        (COMPLETIONS, {"prompt": "a", "structured_outputs": {"grammar": 1}}, 400, "structured_outputs.grammar"),
        (COMPLETIONS, {"prompt": "a", "vllm_xargs": {"a": [2**64]}}, 400, "vllm_xargs.a.0"),
        (COMPLETIONS, b'{"prompt": "a", "vllm_xargs": {"a": 1e999}}', 400, "vllm_xargs.a"),
        (COMPLETIONS, b'{"prompt": "a", "vllm_xargs": {"a": NaN}}', 400, "vllm_xargs.a"),
        (COMPLETIONS, {"prompt": "a", "vllm_xargs": 1}, 400, "vllm_xargs"),
        (COMPLETIONS, {"prompt": "a", "seed": -(2**63) - 1}, 400, "seed"),
        (COMPLETIONS, b'{"prompt": "a", "unknown": ' + b"9" * 4000 + b"}", 400, "unknown"),
        (COMPLETIONS, b'{"prompt": "\\ud800"}', 400, None),
        (COMPLETIONS, {"prompt": "a", "model": "gpt-4"}, 404, "model"),
        (COMPLETIONS, b" " * (33 * 2**20), 413, None),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": ["hi"]}, 400, "messages.0"),
        (CHAT, {"messages": [{"content": "hi"}]}, 400, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content[0]"),
        (CHAT, {"messages": MESSAGES, "top_logprobs": 2}, 400, "top_logprobs"),
        (CHAT, {"messages": MESSAGES, "chat_template": "{{1}}"}, 400, "chat_template"),
        (CHAT, {"messages": MESSAGES, "modalities": ["audio"]}, 400, "modalities"),
        (CHAT, {"messages": [{"role": "user", "content": "x " * 2**21}]}, 400, "prompt"),
        (
            CHAT,
            {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {"schema": 1}}},
            400,
            SCHEMA,
        ),
        ("/tokenize", {"prompt": "x" * 2**24}, 400, "prompt"),
        ("/detokenize", {"tokens": [10**9]}, 400, "tokens"),
        ("/tokenize", {}, 400, "prompt"),
        ("/v1/nothing", {}, 404, None),
    ],
)
def test_bad_requests_are_told_what_is_wrong(server: Running, path: str, body: object, status: int, param: str | None):
    got, answer, _ = server.ask("POST", path, body)
    assert (got, answer["error"]["param"]) == (status, param), answer
    assert len(answer["error"]["message"]) < 400
    assert "site-packages" not in answer["error"]["message"]
    if status == 404 and param == "model":
        assert "'tiny', 'also'" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("POST", "/v1/chat/completion", {}, "Did you mean '/v1/chat/completions'?"),
        ("GET", CHAT, None, "does not take GET; it takes POST"),
        ("POST", CHAT, {"messages": "hi"}, "messages: Input should be a valid array, got a string."),
        ("POST", COMPLETIONS, {"prompt": "a", "n": True}, "n: Input should be a valid integer, got true."),
        ("POST", COMPLETIONS, {"prompt": "a", "stop": ["b", 1]}, "stop.1: Input should be a valid string, got 1."),
        ("POST", COMPLETIONS, {"prompt": "a", "user": "u" * 2000}, "at most 1024 characters, got a string."),
    ],
)
def test_what_came_and_what_was_meant_are_told(server: Running, method: str, path: str, body: object, told: str):
    assert told in server.ask(method, path, body)[1]["error"]["message"]


def test_unknown_fields_are_named(server: Running):
    status, _, headers = server.ask("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 1, "temprature": 1, "user": "u"})
    assert (status, headers["x-ignored-fields"]) == (200, "temprature")


def test_a_head_without_end_is_cut(server: Running):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        with pytest.raises((http.client.HTTPException, OSError, AssertionError)):
            connection.request("GET", "/health", headers={f"x-{i}": "y" * 1000 for i in range(1000)})
            assert connection.getresponse().status != 400
    finally:
        connection.close()
    assert server.ask("GET", "/health")[0] == 200


def test_many_at_once_are_as_alone(server: Running):
    asked = [{**SAMPLED, "seed": seed, "stream": seed % 2 == 1} for seed in range(8)]
    alone = [texts(server.post(COMPLETIONS, **{**one, "stream": False}))[0] for one in asked]
    assert len(set(alone)) > 4

    def run(one: dict) -> str:
        return (
            gather(server.stream(COMPLETIONS, **one))[0] if one["stream"] else texts(server.post(COMPLETIONS, **one))[0]
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, asked)) == alone


def test_a_client_that_leaves_frees_its_place(server: Running):
    events = server.stream(COMPLETIONS, prompt=PROMPT, max_tokens=4000, ignore_eos=True, temperature=1)
    next(events)
    wait_for(lambda: server.metric("vllm:num_requests_running") == 1, 5, "a running request")
    events.close()
    wait_for(lambda: server.metric("vllm:num_requests_running") == 0, 5, "the end of a left stream")

    leaving = threading.Thread(target=leave_early, args=(server,))
    leaving.start()
    wait_for(lambda: server.metric("vllm:num_requests_running") == 2, 5, "two running sequences")
    leaving.join()
    wait_for(lambda: server.metric("vllm:num_requests_running") == 0, 5, "the end of a left answer")


def leave_early(server: Running) -> None:
    import http.client
    import json

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1)
    body = {"prompt": PROMPT, "max_tokens": 4000, "ignore_eos": True, "n": 2}
    connection.request("POST", COMPLETIONS, json.dumps(body), {"Authorization": f"Bearer {KEY}"})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


def test_a_killed_engine_loses_and_doubles_nothing(server: Running):
    asked = [
        {**SAMPLED, "max_tokens": 120, "n": 2},
        {**SAMPLED, "max_tokens": 120, "temperature": 0},
        {**SAMPLED, "max_tokens": 120, "logprobs": 1, "seed": 3, "stop": ["zebra"]},
    ]
    undisturbed = [dict(enumerate(texts(server.post(COMPLETIONS, **one)))) for one in asked]
    engine = server.engine_pid()
    num_seen, may_kill = [0], threading.Event()

    def stream(one: dict) -> dict[int, str]:
        def counted():
            for event in server.stream(COMPLETIONS, **one):
                num_seen[0] += 1
                if num_seen[0] > 60:
                    may_kill.set()
                yield event

        return gather(counted())

    def whole(one: dict) -> dict[int, str]:
        return dict(enumerate(texts(server.post(COMPLETIONS, **one))))

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(stream, one) for one in asked] + [pool.submit(whole, one) for one in asked]
        assert may_kill.wait(30)
        os.kill(engine, signal.SIGKILL)
        wait_for(lambda: server.ask("GET", "/health")[0] == 503, 3, "an honest health check")
        late = pool.submit(whole, asked[1])  # waits for the next engine
        assert [answer.result(60) for answer in answers] == undisturbed * 2
        assert late.result(60) == undisturbed[1]
    assert server.engine_pid() != engine
    assert "killed by signal 9" in server.log.read_text()


def test_the_page_and_its_numbers(server: Running):
    status, text, headers = server.ask("GET", "/", key=None)
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', text):
        assert server.ask("GET", name, key=None)[0] == 200, name
    for name in ("/page/files/../__init__.py", "/page/files/__init__.py", "/page/files/%2e%2e/__init__.py"):
        assert server.ask("GET", name, key=None)[0] == 404, name
    assert server.ask("GET", "/page/state", key=None)[0] == 401
    _, state, _ = server.ask("GET", "/page/state")
    assert state["models"] == ["tiny", "also"] and state["engine"]["num_blocks"] > 100
    events = server.stream("/v1/completions", **SAMPLED, n=2)
    next(events)
    (first, second) = server.ask("GET", "/page/state")[1]["engine"]["sequences"]
    assert first["name"].startswith("cmpl-") and (first["index"], second["index"]) == (0, 1)
    list(events)


def test_sigterm_lets_open_streams_finish(server: Running):
    """The last test of this server."""
    engine = server.engine_pid()
    events = server.stream(COMPLETIONS, **{**SAMPLED, "max_tokens": 200})
    first = next(events)
    server.process.send_signal(signal.SIGTERM)
    assert len(gather([first, *events])[0]) > 200
    assert server.process.wait(20) == 0
    wait_for(lambda: not Path(f"/proc/{engine}").exists(), 5, "the engine's end")
    assert "The server has ended" in server.log.read_text().splitlines()[-1]


def test_a_folder_without_a_chat_template(tmp_path: Path):
    folder = write_opt(tmp_path / "opt", prefix="model.", hidden=96, layers=2)
    with serving(tmp_path, "--model", str(folder), "--strict-fields", "--max-model-len", "64") as server:
        answer = server.post(COMPLETIONS, prompt="Hello", max_tokens=3, ignore_eos=True, model=str(folder))
        assert answer["usage"]["completion_tokens"] == 3
        status, answer, _ = server.ask("POST", CHAT, {"messages": MESSAGES})
        assert status == 400
        assert "--chat-template" in answer["error"]["message"]
        status, answer, _ = server.ask("POST", COMPLETIONS, {"prompt": "a", "temprature": 1})
        assert (status, answer["error"]["param"]) == (400, "temprature")
        assert "'temperature'" in answer["error"]["message"]
        leaves_at_the_second_signal(server)


def leaves_at_the_second_signal(server: Running) -> None:
    engine = server.engine_pid()
    os.kill(engine, signal.SIGSTOP)  # so that nothing ends by itself
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(server.post, COMPLETIONS, prompt="a", max_tokens=2)
        wait_for(lambda: server.ask("GET", "/load")[1] == {"server_load": 1}, 3, "an open request")
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(2) == 1
        assert hanging.exception(5) is not None
    wait_for(lambda: not Path(f"/proc/{engine}").exists(), 5, "the engine's end")


@pytest.mark.slow
def test_a_killed_worker_of_two_loses_and_doubles_nothing(tmp_path: Path):
    asked = {"prompt": PROMPT, "max_tokens": 150, "temperature": 0, "ignore_eos": True}
    with serving(tmp_path, "-tp", "2") as server:
        undisturbed = texts(server.post(COMPLETIONS, **asked))[0]
        tasks = Path(f"/proc/{server.engine_pid()}/task").glob("*/children")
        workers = [int(word) for task in tasks for word in task.read_text().split()]
        assert len(workers) >= 2
        events = server.stream(COMPLETIONS, **asked)
        first = next(events)
        os.kill(workers[-1], signal.SIGKILL)
        assert gather([first, *events])[0] == undisturbed
        assert "was killed by signal 9" in server.log.read_text()


def test_what_stops_a_start_is_one_line(tmp_path: Path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = start("--port", port)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr
    done = start("--port", "0", "--model", str(tmp_path))
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr.splitlines()[-1]
    done = start("--port", "0", "--ssl-certfile", str(tmp_path / "no.pem"), "--ssl-keyfile", str(tmp_path / "no.key"))
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "no.pem" in done.stderr
    done = start("--port", "0", "--chat-template", str(tmp_path / "no.jinja"))
    assert done.returncode != 0
    assert "no.jinja" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    (tmp_path / "broken.yaml").write_text("port: [1\nhost: x")
    for flags, clue in (
        (("--config", str(tmp_path / "broken.yaml")), "line 2"),
        (("--config", str(tmp_path / "none.yaml")), "none.yaml: No such file"),
        (("--max-model-len", "long"), "'long' is not a whole number"),
        (("--host", "192.0.2.1"), "192.0.2.1:8000: Cannot assign"),
    ):
        done = start(*flags)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert clue in done.stderr
    (tmp_path / "no.pem").write_text("junk")
    done = start(
        "--port", "0", *("--ssl-certfile", str(tmp_path / "no.pem")), "--ssl-keyfile", str(tmp_path / "no.pem")
    )
    assert done.returncode != 0 and done.stderr.count("\n") == 1 and "PEM" in done.stderr
    done = start("--port", "0", "--tool-call-parser", "hermse")
    assert done.returncode != 0
    assert "the nearest known is 'hermes'" in done.stderr
    assert "Traceback" not in done.stderr


def start(*flags: str) -> subprocess.CompletedProcess:
    """Run the server as vLLM's users start it, until it ends."""
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_what_describes_the_api(tmp_path: Path):
    with serving(tmp_path, program="tests.fakes.counting_server") as server:
        _, document, _ = server.ask("GET", "/openapi.json")
        assert document["openapi"].startswith("3.1")
        completion = document["paths"]["/v1/completions"]["post"]
        assert completion["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/CompletionRequest")
        fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
        assert {"prompt", "max_tokens", "top_k", "cache_salt"} <= set(fields)
        assert document["paths"]["/health"]["get"].get("security") is None
        assert completion["security"] == [{"bearer": []}, {"header": []}]
        status, page, headers = server.ask("GET", "/docs")
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "<script" not in page and "http://" not in page and "https://" not in page
        assert "/v1/chat/completions" in page and "max_tokens" in page
        assert server.ask("GET", "/docs", key=None)[0] == 401

        events = server.stream(COMPLETIONS, prompt=PROMPT, max_tokens=4000, ignore_eos=True, request_id="mine")
        first = next(events)
        assert server.post("/abort_requests", request_ids=["mine", "other"]) == {
            "aborted": ["mine"],
            "not_found": ["other"],
        }
        rest = list(events)
        assert rest[-1]["choices"][0]["finish_reason"] == "abort"
        assert first["id"] == "cmpl-mine"
        wait_for(lambda: server.metric("vllm:num_requests_running") == 0, 5, "the end of an aborted stream")
        with ThreadPoolExecutor(1) as pool:
            whole = pool.submit(
                server.post, COMPLETIONS, prompt=PROMPT, max_tokens=4000, ignore_eos=True, request_id="mine"
            )
            wait_for(lambda: server.metric("vllm:num_requests_running") == 1, 5, "a running request")
            server.post("/abort_requests", request_ids=["cmpl-mine"])
            assert whole.result(10)["choices"][0]["finish_reason"] == "abort"
        names_of_metrics(server)


def names_of_metrics(server: Running) -> None:
    """vLLM's names and types, as its dashboards ask for them."""
    _, text, _ = server.ask("GET", "/metrics")
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    counters = "prompt_tokens generation_tokens request_success num_preemptions prefix_cache_queries prefix_cache_hits"
    counters += " prompt_tokens_cached admission_rejections corrupted_requests"
    histograms = "time_to_first_token_seconds inter_token_latency_seconds request_time_per_output_token_seconds "
    histograms += "e2e_request_latency_seconds request_queue_time_seconds request_inference_time_seconds "
    histograms += "request_prefill_time_seconds request_decode_time_seconds request_prompt_tokens "
    histograms += "request_generation_tokens request_max_num_generation_tokens request_params_n "
    histograms += "request_params_max_tokens request_prefill_kv_computed_tokens iteration_tokens_total"
    gauges = "num_requests_running num_requests_waiting kv_cache_usage_perc cache_config_info"
    expected = {f"vllm:{name}_total": "counter" for name in counters.split()}
    expected |= {f"vllm:{name}": "histogram" for name in histograms.split()}
    expected |= {f"vllm:{name}": "gauge" for name in gauges.split()}
    expected |= {"http_requests_total": "counter", "http_request_duration_seconds": "histogram"}
    assert expected.items() <= types.items(), expected.items() - types.items()
    assert "process_resident_memory_bytes" in types
    assert 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="builtin"} 2.0' in text
    assert 'http_requests_total{handler="/docs",method="GET",status="4xx"} 1.0' in text
