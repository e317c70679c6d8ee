"""Clients that bring much with them, against a real server: `make e2e` runs those that are installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http_server import KEY, Running, serving

pytestmark = pytest.mark.slow
QUESTION = "What is the capital of France?"
BUILTIN = Path(__file__).parents[2] / "vllm" / "builtin"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("more"), "--served-model-name", "tiny") as it:
        yield it


def run(program: str, *words: str, folder: Path, seconds: float = 280) -> str:
    """The output of a program that must succeed, with our warnings left out of it."""
    # why: litellm would ask the network for its table of prices
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


LANGCHAIN = """
import sys
from langchain_openai import ChatOpenAI
from langchain_core.tools import tool

llm = ChatOpenAI(model="tiny", base_url=sys.argv[1], api_key=sys.argv[2], temperature=0)
whole = llm.invoke("What is the capital of France?").content
assert "Paris" in whole
assert "".join(piece.content for piece in llm.stream("What is the capital of France?")) == whole

@tool
def get_weather(city: str) -> str:
    "Get the weather of a city"

[call] = llm.bind_tools([get_weather]).invoke("What is the weather in Paris?").tool_calls
assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"}), call
answers = ChatOpenAI(model="tiny", base_url=sys.argv[1], api_key=sys.argv[2], use_responses_api=True)
assert "Paris" in answers.invoke("What is the capital of France?").text
"""


def test_langchain(server: Running, tmp_path: Path):
    pytest.importorskip("langchain_openai")
    run(LANGCHAIN, f"http://127.0.0.1:{server.port}/v1", KEY, folder=tmp_path)


LITELLM = """
import sys
import litellm

url, key = sys.argv[1:]
asked = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "api_key": key, "temperature": 0}
for model, base in (("openai/tiny", url + "/v1"), ("hosted_vllm/tiny", url + "/v1"), ("ollama_chat/tiny", url)):
    whole = litellm.completion(model=model, api_base=base, **asked).choices[0].message.content
    assert "Paris" in whole, (model, whole)
    pieces = litellm.completion(model=model, api_base=base, stream=True, **asked)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole, model
claude = litellm.completion(model="anthropic/tiny", api_base=url, max_tokens=50, **asked)
assert "Paris" in claude.choices[0].message.content
"""


def test_litellm(server: Running, tmp_path: Path):
    pytest.importorskip("litellm")
    run(LITELLM, f"http://127.0.0.1:{server.port}", KEY, folder=tmp_path)


TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/capitals.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "The capital of {{country}} is"
doc_to_target: 0
doc_to_choice: ["{{right}}", "{{wrong}}"]
target_delimiter: " "
metric_list: [{metric: acc}]
"""
LM_EVAL = "import sys; from lm_eval.__main__ import cli_evaluate; sys.argv[0] = 'lm_eval'; cli_evaluate()"


def test_lm_eval(server: Running, tmp_path: Path):
    pytest.importorskip("lm_eval")
    rows = [("France", "Paris", "Rome"), ("Italy", "Rome", "Paris"), ("Japan", "Tokyo", "Oslo")]
    lines = [json.dumps(dict(zip(("country", "right", "wrong"), row, strict=True))) for row in rows]
    (tmp_path / "capitals.jsonl").write_text("\n".join(lines))
    (tmp_path / "capitals.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))
    model = f"model=tiny,base_url=http://127.0.0.1:{server.port}/v1/completions,tokenizer={BUILTIN},num_concurrent=2"
    words = ["run", "--model", "local-completions", "--model_args", f"{model},header={{}}", "--tasks", "capitals"]
    words += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    program = f"import os; os.environ |= dict(OPENAI_API_KEY={KEY!r}, HF_HUB_OFFLINE='1', HF_DATASETS_OFFLINE='1')\n"
    run(program + LM_EVAL, *[word.replace(",header={}", "") for word in words], folder=tmp_path)
    [result] = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(result.read_text())["results"]["capitals"]["acc,none"] == 1.0


def test_guidellm(server: Running, tmp_path: Path):
    pytest.importorskip("guidellm")
    words = ["run", "--backend", f"kind=openai_http,target=http://127.0.0.1:{server.port},api_key={KEY}"]
    words += ["--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=20"]
    words += ["--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16"]
    words += ["--tokenizer", f"kind=hf_auto,model={BUILTIN}"]
    program = "import sys; from guidellm.__main__ import cli; sys.argv[0] = 'guidellm'; cli()"
    before = len(server.log.read_text())  # others look for routes that are not there, and do without
    run(program, *words, folder=tmp_path)
    told = server.log.read_text()[before:].splitlines()
    wrong = [line for line in told if "HTTP/1.1" in line and not line.endswith(" 200")]
    assert wrong == []


SCHEMATHESIS = "import sys; from schemathesis.cli import schemathesis; sys.argv[0] = 'st'; schemathesis()"


@pytest.mark.timeout(1600)  # thousands of requests, one for 4,095 answers
def test_schemathesis_finds_no_500(server: Running, tmp_path: Path):
    pytest.importorskip("schemathesis")
    url = f"http://127.0.0.1:{server.port}/openapi.json"
    words = ["run", url, "-H", f"Authorization: Bearer {KEY}", "--checks", "not_a_server_error", "--phases"]
    words += ["examples,coverage,fuzzing", "-n", "15", "--request-timeout", "240", "--seed", "1", "--workers", "2"]
    words += ["--exclude-path", "/health", "--exclude-path", "/ping"]  # they may say 503 by their nature
    print(run(SCHEMATHESIS, *words, folder=tmp_path, seconds=1500)[-3000:])
    assert " failed." not in server.log.read_text()
