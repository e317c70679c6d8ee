"""Tokens in and out, batches of conversations, logits processors of a server, and routes that are not here."""

import pytest

from tests.support.http_server import Running, serving

ONLY = "tests.support.processors:Only"
PROMPT = "The capital of France is"
GREEDY = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), "--logits-processors", ONLY, "--enable-scale-out") as it:
        yield it


@pytest.fixture(scope="module")
def ids(server: Running) -> list[int]:
    return server.post("/tokenize", prompt=PROMPT)["tokens"]


def test_tokens_in_and_out(server: Running, ids: list[int]):
    text = server.post("/v1/completions", prompt=PROMPT, return_token_ids=True, logprobs=2, **GREEDY)["choices"][0]
    path, sampling = "/inference/v1/generate", {**GREEDY, "logprobs": 2}
    answer = server.post(path, token_ids=ids, sampling_params=sampling, return_token_ids=True, request_id="mine")
    (choice,) = answer["choices"]
    assert choice["token_ids"] == text["token_ids"] and choice["finish_reason"] == text["finish_reason"]
    assert answer["request_id"] == "generate-mine" and answer["prompt_token_ids"] == ids
    assert answer["output_mode"] == "tokens" and "text" not in choice
    assert answer["usage"]["completion_tokens"] == len(choice["token_ids"])
    entries = choice["logprobs"]["content"]
    assert [one["logprob"] for one in entries] == pytest.approx(text["logprobs"]["token_logprobs"], abs=1e-4)
    assert [one["token_id"] for one in entries] == choice["token_ids"]
    assert all(one["rank"] == 1 and len(one["top_logprobs"]) == 2 for one in entries)
    said = server.post(path, token_ids=ids, sampling_params=GREEDY, output_mode="text")["choices"][0]
    assert said["text"] == text["text"] and said["logprobs"] is None
    events = list(server.stream(path, token_ids=ids, sampling_params=sampling, stream_options={"include_usage": True}))
    assert [i for e in events for c in e["choices"] for i in c["token_ids"]] == choice["token_ids"]
    assert events[-1]["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]
    both = server.post(path, token_ids=ids, sampling_params={"temperature": 1, "seed": 3, "n": 2, "max_tokens": 4})
    assert [choice["index"] for choice in both["choices"]] == [0, 1]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"token_ids": [], "sampling_params": {}}, "token_ids"),
        ({"token_ids": [10**9], "sampling_params": {}}, "prompt_token_ids"),
        ({"token_ids": [5, -1], "sampling_params": {}}, "from 0"),
        ({"token_ids": [-(2**62)], "sampling_params": {}}, "from 0"),
        ({"token_ids": [5]}, "sampling_params"),
        ({"token_ids": [5], "sampling_params": {"temperature": -1}}, "temperature"),
        ({"token_ids": [5], "sampling_params": {"detokenize": False}, "output_mode": "text"}, "output_mode"),
        ({"token_ids": [5], "sampling_params": {}, "output_mode": "derender"}, "output_mode"),
    ],
)
def test_bad_token_requests(server: Running, body: dict, told: str):
    status, answer, _ = server.ask("POST", "/inference/v1/generate", body)
    assert status == 400 and told in f"{answer['error']['param']} {answer['error']['message']}"


def test_a_batch_of_conversations(server: Running):
    path, questions = "/v1/chat/completions", ["What is the capital of France?", "What is the capital of Italy?"]
    talks = [[{"role": "user", "content": one}] for one in questions]
    alone = [server.post(path, messages=one, **GREEDY) for one in talks]
    batch = server.post(f"{path}/batch", messages=talks, **GREEDY)
    assert [choice["index"] for choice in batch["choices"]] == [0, 1]
    said = [choice["message"]["content"] for choice in batch["choices"]]
    assert said == [one["choices"][0]["message"]["content"] for one in alone] and "Paris" in said[0]
    assert batch["usage"]["total_tokens"] == sum(one["usage"]["total_tokens"] for one in alone)
    forms = server.post(f"{path}/batch", messages=talks, structured_outputs={"regex": "(yes|no)"}, n=2)
    assert [choice["index"] for choice in forms["choices"]] == [0, 1, 2, 3]
    assert all(choice["message"]["content"] in ("yes", "no") for choice in forms["choices"])
    wrong = {
        "messages.0": {"messages": [[]]},
        "stream": {"messages": talks, "stream": True},
        "tools": {"messages": talks, "tools": [{"type": "function", "function": {"name": "f"}}]},
        "messages[1]": {"messages": [talks[0], [{"role": "user", "content": "long " * 9000}]]},
    }
    for told, body in wrong.items():
        status, answer, _ = server.ask("POST", f"{path}/batch", body)
        assert status == 400 and told in f"{answer['error']['param']} {answer['error']['message']}"
    assert server.ask("GET", "/load")[1] == {"server_load": 0}


def test_a_logits_processor_of_the_server(server: Running, ids: list[int]):
    sampling = {**GREEDY, "ignore_eos": True, "extra_args": {"only": 67}}
    answer = server.post("/inference/v1/generate", token_ids=ids, sampling_params=sampling)
    assert answer["choices"][0]["token_ids"] == [67] * 6
    answer = server.post("/v1/completions", prompt=PROMPT, vllm_xargs={"only": 67}, return_token_ids=True, **GREEDY)
    assert answer["choices"][0]["token_ids"] == [67] * 6
    assert server.post("/v1/completions", prompt=PROMPT, **GREEDY)["choices"][0]["text"] == " Paris."
    status, answer, _ = server.ask("POST", "/v1/completions", {"prompt": PROMPT, "vllm_xargs": {"only": "x"}})
    assert status == 500 and "only must be a token id" in answer["error"]["message"]
    assert "extra_args change no answer" not in server.log.read_text()


@pytest.mark.parametrize(
    ("path", "told"), [("/update_weights", "reload_weights"), ("/generate", "/v1/completions"), ("/score", "head")]
)
def test_routes_that_are_not_here_say_why(server: Running, path: str, told: str):
    status, answer, _ = server.ask("POST", path, {})
    assert status == 404 and f"{path} is not in this version" in answer["error"]["message"]
    assert told in answer["error"]["message"]


def test_embeddings_as_a_prompt_are_refused_by_name(server: Running):
    status, answer, _ = server.ask("POST", "/v1/completions", {"prompt": None, "prompt_embeds": "AAAA"})
    assert status == 400 and "prompt_embeds is not supported" in answer["error"]["message"]
