"""`vllm chat`, `vllm complete` and `vllm run-batch`, as a user types them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http_server import KEY, Running, serving, wait_for
from vllm import LLM, SamplingParams

VLLM = [sys.executable, "-m", "vllm"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cli")) as it:
        yield it


def vllm(
    server: Running, verb: str, *words: str, typed: str | None = None, key: str = KEY
) -> subprocess.CompletedProcess:
    """Run a client of the server."""
    command = [*VLLM, verb, "--url", f"http://127.0.0.1:{server.port}/v1", "--api-key", key, *words]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60)


def test_chat(server: Running):
    done = vllm(server, "chat", "--stats", "-q", "What", "is", "the capital of France?")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "tokens/s, first after " in done.stderr
    typed = "My name is Alice.\n\nWhat is the capital of France?\n"
    done = vllm(server, "chat", "--system-prompt", "Be short.", "--max-tokens", "30", typed=typed)
    assert done.returncode == 0 and "Paris" in done.stdout


def test_complete(server: Running):
    done = vllm(server, "complete", "--max-tokens", "4", "-q", "The capital of France is")
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr
    done = vllm(server, "complete", "--max-tokens", "4", typed="The capital of France is\nThe capital of Italy is\n")
    assert ["Paris" in done.stdout, "Rome" in done.stdout, done.returncode] == [True, True, 0]


def test_what_goes_wrong_is_one_line(server: Running):
    done = vllm(server, "chat", "-q", "hi", key="wrong")
    assert done.returncode == 2 and "the server says 401" in done.stderr and done.stderr.count("\n") == 1
    done = vllm(server, "complete", "--model-name", "gpt-4", "-q", "hi")
    assert done.returncode == 2 and "'builtin'" in done.stderr
    done = subprocess.run([*VLLM, "chat", "--url", "http://127.0.0.1:9/v1", "-q", "hi"], capture_output=True, text=True)
    assert done.returncode == 2 and "Start one with: vllm serve" in done.stderr
    done = subprocess.run([*VLLM, "chat", "--url", "ftp://x", "-q", "hi"], capture_output=True, text=True)
    assert done.returncode == 2 and "url must be an address" in done.stderr


def request(number: int, url: str = "/v1/completions", **body: object) -> dict:
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


def write(file: Path, requests: list[dict]) -> None:
    file.write_text("".join(json.dumps(one) + "\n" for one in requests))


def batch(folder: Path, *words: str) -> list[str]:
    return [*VLLM, "run-batch", "-i", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"), *words]


def answers(folder: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines), "a request was answered twice"
    return {line["custom_id"]: line for line in lines}


def test_a_batch_of_all_kinds(tmp_path: Path):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    write(
        tmp_path / "in.jsonl",
        [
            request(0, prompt="The capital of France is", max_tokens=4, temperature=0),
            request(1, "/v1/chat/completions", messages=messages),
            request(2, "/v1/responses", input="What is the capital of France?"),
            request(3, "/v1/messages", messages=messages, max_tokens=30, model="builtin"),
            request(4, prompt="a", temperature=9),
            request(5, "/v1/embeddings", input="a"),
            request(6, prompt="a", stream=True),
        ],
    )
    done = subprocess.run(batch(tmp_path, "--api-key", "k"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "7 requests answered" in done.stderr and "3 of them with an error" in done.stderr
    found = answers(tmp_path)
    assert [found[f"r{i}"]["response"]["status_code"] for i in range(7)] == [200] * 4 + [400] * 3
    assert "Paris" in found["r0"]["response"]["body"]["choices"][0]["text"]
    assert all("Paris" in json.dumps(found[f"r{i}"]["response"]["body"]) for i in range(4))
    assert found["r0"]["error"] is None and found["r4"]["error"]["param"] == "temperature"


def test_a_killed_batch_goes_on(tmp_path: Path):
    given = [{"prompt": f"{i} + 1 =", "max_tokens": 16, "seed": i, "ignore_eos": True} for i in range(24)]
    asked = [request(i, temperature=1.0, **one) for i, one in enumerate(given)]
    write(tmp_path / "in.jsonl", asked)
    flags = ["--deterministic", "--max-concurrency", "4"]
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(batch(tmp_path, *flags), stderr=subprocess.DEVNULL)
    wait_for(lambda: out.exists() and out.read_text().count("\n") >= 4, 60, "some answers")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = answers(tmp_path)
    assert 4 <= len(before) < 24
    with out.open("a") as file:
        file.write('{"id": "torn')  # as a kill in the middle of a write leaves it
    done = subprocess.run(batch(tmp_path, *flags), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert f"has {len(before)} of 24 answers" in done.stderr
    resumed = answers(tmp_path)
    assert set(resumed) == {one["custom_id"] for one in asked}
    assert all(resumed[name] == line for name, line in before.items())
    done = subprocess.run(batch(tmp_path, *flags), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0 and "nothing is left to do" in done.stderr and "Traceback" not in done.stderr
    with LLM(deterministic=True) as llm:  # all at once, and nobody kills it
        params = [SamplingParams(max_tokens=16, seed=one["seed"], ignore_eos=True) for one in given]
        whole = llm.generate([one["prompt"] for one in given], params, use_tqdm=False)
    texts = {f"r{i}": out.outputs[0].text for i, out in enumerate(whole)}
    assert texts == {name: line["response"]["body"]["choices"][0]["text"] for name, line in resumed.items()}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (None, "No such file"),
        (['{"custom_id": "a"}', "nonsense"], "in.jsonl:2 is not JSON"),
        (['{"custom_id": "a"}', '{"custom_id": "a"}'], "is that of line 1 too"),
        (['{"url": "/v1/completions"}'], "custom_id must be"),
        (["[]"], "is not a JSON object"),
    ],
)
def test_a_bad_batch_is_told_before_anything_starts(tmp_path: Path, lines: list[str] | None, says: str):
    if lines is not None:
        (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = subprocess.run(batch(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_answers_of_another_batch_are_left_alone(tmp_path: Path):
    write(tmp_path / "in.jsonl", [request(0, prompt="a")])
    (tmp_path / "out.jsonl").write_text('{"custom_id": "other"}\n')
    done = subprocess.run(batch(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (tmp_path / "out.jsonl").read_text() == '{"custom_id": "other"}\n'
