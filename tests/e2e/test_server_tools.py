"""A real server with the built-in model: tool calls and thoughts, streamed and whole."""

import json

import pytest

from tests.support.http_server import Running, serving

CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [WEATHER], "temperature": 0}
THINK = {
    "messages": [{"role": "user", "content": "What is 123 + 456?"}],
    "temperature": 0,
    "max_tokens": 200,
    "chat_template_kwargs": {"enable_thinking": True},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), "--deterministic", "--served-model-name", "tiny") as it:
        yield it


def joined(events) -> dict:
    """The message that a stream's deltas make, as clients join them; with its finish reason."""
    message: dict = {"tool_calls": []}
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            for name in ("role", "content", "reasoning", "reasoning_content"):
                if delta.get(name):
                    message[name] = message.get(name, "") + delta[name]
            for piece in delta.get("tool_calls", ()):
                if "id" in piece:
                    assert piece["index"] == len(message["tool_calls"])
                    message["tool_calls"].append({"function": {"name": piece["function"]["name"], "arguments": ""}})
                function = message["tool_calls"][piece["index"]]["function"]
                function["arguments"] += piece["function"]["arguments"]
            message["finish_reason"] = choice["finish_reason"] or message.get("finish_reason")
    return message


def same(whole: dict, events: list[dict]) -> None:
    """The stream is the whole."""
    [choice], message = whole["choices"], joined(events)
    for name in ("role", "content", "reasoning", "reasoning_content"):
        assert message.get(name) == (choice["message"].get(name) or None)
    calls = [call["function"] for call in choice["message"].get("tool_calls", ())]
    assert [call["function"] for call in message["tool_calls"]] == calls
    assert message["finish_reason"] == choice["finish_reason"]
    for usage in (events[-1]["usage"], whole["usage"]):
        del usage["prompt_tokens_details"]  # the second time the prompt is in the cache
    assert events[-1]["usage"] == whole["usage"]


def both(server: Running, **asked) -> dict:
    whole = server.post(CHAT, **asked)
    same(whole, list(server.stream(CHAT, **asked, stream_options={"include_usage": True})))
    return whole


def test_a_tool_is_called_and_its_answer_put_in_words(server: Running):
    [choice] = both(server, **ASK, max_tokens=60)["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"]["name"] == "get_weather" and json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    answered = [*ASK["messages"], choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": "18 C"}]
    [last] = both(server, **{**ASK, "messages": answered}, max_tokens=40)["choices"]
    assert last["finish_reason"] == "stop" and "18" in last["message"]["content"]


def test_tools_that_may_not_be_called_are_not_shown(server: Running):
    bare = server.post(CHAT, messages=ASK["messages"], max_tokens=4)
    none = server.post(CHAT, **ASK, tool_choice="none", max_tokens=4)
    auto = server.post(CHAT, **ASK, tool_choice="auto", max_tokens=4)
    assert bare["usage"]["prompt_tokens"] == none["usage"]["prompt_tokens"] < auto["usage"]["prompt_tokens"]


def test_a_call_that_is_cut_off(server: Running):
    for max_tokens in (3, 8, 12, 16):
        [choice] = both(server, **ASK, max_tokens=max_tokens)["choices"]
        assert choice["finish_reason"] == "length"


def test_thoughts_are_apart(server: Running):
    whole = both(server, **THINK)
    [choice] = whole["choices"]
    message = choice["message"]
    assert message["reasoning"] == message["reasoning_content"] and "<think>" not in message["reasoning"]
    assert "579" in message["content"] and "think>" not in message["content"]
    thought = whole["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < thought < whole["usage"]["completion_tokens"]
    hidden = both(server, **THINK, include_reasoning=False)
    assert hidden["choices"][0]["message"]["reasoning"] is None
    assert hidden["choices"][0]["message"]["content"] == message["content"]


def test_logprobs_and_token_ids_lose_nothing_to_the_reader(server: Running):
    asked = {**ASK, "max_tokens": 40, "logprobs": True, "return_token_ids": True}
    [whole] = server.post(CHAT, **asked)["choices"]
    choices = [c for e in server.stream(CHAT, **asked) for c in e["choices"]]
    ids = [token for c in choices for token in c.get("token_ids", ())]
    tokens = [token for c in choices if c["logprobs"] for token in c["logprobs"]["content"]]
    assert (ids, tokens) == (whole["token_ids"], whole["logprobs"]["content"])


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
    ],
)
def test_bad_tools_are_told(server: Running, extra, param):
    status, answer, _ = server.ask("POST", CHAT, {**ASK, **extra})
    assert (status, answer["error"]["param"]) == (400, param), answer
