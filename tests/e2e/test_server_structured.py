"""A real server with the built-in model: answers of a form, calls that must come, grammars that cost only their own."""

import json
import os
import re
import signal
import threading
import time

import pytest

from tests.e2e.test_server_tools import ASK, THINK, WEATHER, both
from tests.support.http_server import Running, serving

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ASKED = {
    "messages": [{"role": "user", "content": "Anna is 31 years old."}],
    "max_tokens": 80,
    "temperature": 1,
    "seed": 5,
}
PROMPT = {"prompt": "Record: ", "max_tokens": 80, "temperature": 1, "seed": 5}


def of_schema(schema: dict) -> dict:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), "--deterministic", "--served-model-name", "tiny") as it:
        yield it


def is_person(text: str) -> bool:
    found = json.loads(text)
    return set(found) == {"name", "age"} and isinstance(found["name"], str) and isinstance(found["age"], int)


def test_json_of_a_schema(server: Running):
    for seed in range(4):
        [choice] = both(server, **{**ASKED, "seed": seed}, **of_schema(PERSON))["choices"]
        assert is_person(choice["message"]["content"]) and choice["finish_reason"] == "stop"
    for fields in ({"structured_outputs": {"json": PERSON}}, {"guided_json": PERSON}, of_schema(PERSON)):
        [choice] = server.post(COMPLETIONS, **PROMPT, **fields)["choices"]
        assert is_person(choice["text"]), fields
    [choice] = server.post(CHAT, **{**ASKED, "temperature": 0}, response_format={"type": "json_object"})["choices"]
    assert isinstance(json.loads(choice["message"]["content"]), dict)


def test_other_forms(server: Running):
    lark, ebnf = 'start: "a"+ "b"', 'root ::= "x" digit\ndigit ::= [0-9]'
    tag = {
        "type": "structural_tag",
        "structures": [{"begin": "<n>", "schema": {"type": "integer"}, "end": "</n>"}],
        "triggers": ["<n>"],
    }
    for given, pattern in (
        ({"choice": ["red", "green"]}, "red|green"),
        ({"regex": r"\d{3}-[a-z]{2}"}, r"\d{3}-[a-z]{2}"),
        ({"regex": r"^\d{3}$"}, r"\d{3}"),
        ({"grammar": lark}, "a+b"),
        ({"grammar": ebnf}, "x[0-9]"),
        ({"structural_tag": tag}, r"(?s).*"),
    ):
        [choice] = both(server, **ASKED, structured_outputs=given)["choices"]
        if choice["finish_reason"] == "stop":
            assert re.fullmatch(pattern, choice["message"]["content"]), given


def test_what_goes_with_a_form(server: Running):
    """Several answers, logprobs, stop strings, min_tokens, penalties, a seed: all as without one."""
    asked = {**ASKED, **of_schema(PERSON)}
    many = server.post(CHAT, **asked, n=4)["choices"]
    assert all(is_person(choice["message"]["content"]) for choice in many)
    wild = server.post(CHAT, **{**asked, "temperature": 2}, n=8)["choices"]
    assert all(is_person(choice["message"]["content"]) for choice in wild)
    assert len({choice["message"]["content"] for choice in wild}) > 1
    [alone] = server.post(CHAT, **asked, n=1)["choices"]
    assert alone["message"] == many[0]["message"]
    [scored] = server.post(CHAT, **asked, logprobs=True, top_logprobs=2)["choices"]
    assert scored["message"] == alone["message"]
    text = "".join(token["token"] for token in scored["logprobs"]["content"])
    assert text.startswith(scored["message"]["content"])
    [stopped] = server.post(CHAT, **asked, stop=[","])["choices"]
    assert stopped["message"]["content"] == alone["message"]["content"].split(",")[0]
    [held] = server.post(CHAT, **asked, min_tokens=60)["choices"]
    assert held["finish_reason"] == "stop" and is_person(held["message"]["content"])
    [endless] = server.post(CHAT, **asked, ignore_eos=True)["choices"]
    assert endless["finish_reason"] == "length" and is_person(endless["message"]["content"])
    [punished] = server.post(CHAT, **asked, frequency_penalty=1.5, repetition_penalty=1.3)["choices"]
    assert is_person(punished["message"]["content"])


def test_thoughts_come_first_and_are_free(server: Running):
    asked = {**THINK, "max_tokens": 300, "structured_outputs": {"regex": r"\d{3}!"}}
    [choice] = both(server, **asked)["choices"]
    assert re.fullmatch(r"\d{3}!", choice["message"]["content"])
    assert len(choice["message"]["reasoning"]) > 10
    closed = {**asked, "chat_template_kwargs": {"enable_thinking": False}}
    [choice] = both(server, **closed)["choices"]
    assert choice["message"]["reasoning"] is None and re.fullmatch(r"\d{3}!", choice["message"]["content"])


def test_calls_that_must_come(server: Running):
    other = {"type": "function", "function": {"name": "now"}}
    asked = {**ASK, "tools": [WEATHER, other], "max_tokens": 120}
    for seed in range(3):
        chatty = {**asked, "messages": ASKED["messages"], "temperature": 1, "seed": seed}
        [choice] = both(server, **chatty, tool_choice="required", parallel_tool_calls=False)["choices"]
        [call] = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls" and call["function"]["name"] in ("get_weather", "now")
        named = {"type": "function", "function": {"name": "now"}}
        [choice] = both(server, **chatty, tool_choice=named)["choices"]
        [call] = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "now", "arguments": "{}"}
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    [choice] = both(server, **{**asked, "tools": [strict]})["choices"]
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    [choice] = both(server, **asked, **of_schema(PERSON))["choices"]
    assert choice["message"].get("tool_calls") or is_person(choice["message"]["content"])


HOSTILE = {
    "deep": ({"json": json.loads('{"a":' * 63 + "1" + "}" * 63)}, None),
    "too deep": ({"json": '{"a":' * 5000 + "1" + "}" * 5000}, "depth|JSON"),
    "properties": ({"json": {"properties": {f"p{i}": {"type": "null"} for i in range(3000)}}}, "properties"),
    "optional properties": ({"json": {"type": "object", "properties": {f"p{i}": {} for i in range(490)}}}, None),
    "enum": ({"json": {"enum": list(range(100_000))}}, "enum"),
    "multiple": ({"json": {"type": "integer", "multipleOf": 999_983}}, "multipleOf"),
    "long": ({"json": {"description": "x" * 70_000}}, "size"),
    "remote": ({"json": {"$ref": "http://127.0.0.1:9/x.json"}}, "."),
    "reference": ({"json": {"$ref": "#/nowhere"}}, "."),
    "itself": ({"json": {"$ref": "#"}}, None),
    "no schema": ({"json": {"type": "nonsense"}}, "nonsense"),
    "regex": ({"regex": "(" * 500}, "regex"),
    "long regex": ({"regex": "a" * 70_000}, "size"),
    "nested regex": ({"regex": "((a{1,1000}){1,1000}){1,1000}"}, None),
    "catastrophe": ({"regex": "(a|aa|a?)*b" * 20}, None),
    "nul": ({"regex": "a\0b"}, "NUL"),
    "grammar": ({"grammar": "start: start start"}, None),
    "no grammar": ({"grammar": "start: nothing"}, "nothing"),
    "ebnf": ({"grammar": "root ::= ("}, "."),
    "choice": ({"choice": [str(i) for i in range(20_000)]}, "choices"),
    "empty": ({}, None),
    "two": ({"regex": "a", "choice": ["a"]}, "exactly one"),
    "unknown": ({"jsn": {}}, "jsn"),
    "tag": ({"structural_tag": "{"}, "JSON"),
    "any of": (
        {
            "json": {
                "anyOf": [
                    {
                        "anyOf": [
                            {
                                "anyOf": [
                                    {
                                        "type": "object",
                                        "properties": {
                                            "a": {"anyOf": [{"type": "string", "maxLength": n} for n in range(6)]}
                                        },
                                    }
                                ]
                                * 6
                            }
                        ]
                        * 6
                    }
                ]
                * 6
            }
        },
        None,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_form_costs_its_own_request(server: Running, name):
    """An answer or a 400 that says why, within seconds; the server is as before."""
    given, told = HOSTILE[name]
    began = time.monotonic()
    status, answer, _ = server.ask("POST", COMPLETIONS, {**PROMPT, "max_tokens": 8, "structured_outputs": given})
    took = time.monotonic() - began
    if told is not None:
        assert status == 400, answer
        assert re.search(told, answer["error"]["message"]), answer
    else:
        assert status in (200, 400) or "could not be followed" in answer["error"]["message"], answer
    assert server.ask("GET", "/health", key=None)[0] == 200
    began = time.monotonic()
    assert " Paris" in server.post(COMPLETIONS, prompt="The capital of France is", max_tokens=4)["choices"][0]["text"]
    assert took < max(15, 60 * (time.monotonic() - began)), "on an overloaded machine a short answer takes long too"


def test_others_go_on_while_a_grammar_is_judged(server: Running):
    """Streams of others while hostile schemas come in."""
    done = threading.Event()

    def bombard() -> None:
        for i in range(6):
            schema = {"type": "integer", "multipleOf": 9973 + 2 * i, "minimum": i}
            server.ask("POST", COMPLETIONS, {**PROMPT, "max_tokens": 4, "structured_outputs": {"json": schema}})
        done.set()

    thread = threading.Thread(target=bombard)
    quiet, gaps = [0.1], []
    last = time.monotonic()
    for _ in server.stream(COMPLETIONS, prompt="Once", max_tokens=40, ignore_eos=True):
        quiet.append(time.monotonic() - last)
        last = time.monotonic()
    thread.start()
    while not done.is_set():
        last = time.monotonic()
        for _ in server.stream(COMPLETIONS, prompt="Once", max_tokens=40, ignore_eos=True):
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
    thread.join()
    assert max(gaps) < max(2.0, 8 * max(quiet)), "a machine that is overloaded is slow without them too"


def test_an_engine_that_dies_goes_on_with_the_form(server: Running):
    """kill -9 in mid-answer: the form is followed to its end, with the tokens that an undisturbed run gives."""
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 60, "maxItems": 60}
    asked = {**PROMPT, "max_tokens": 400, "structured_outputs": {"json": schema}}
    [whole] = server.post(COMPLETIONS, **asked)["choices"]
    text, killed = "", False
    for event in server.stream(COMPLETIONS, **asked):
        text += event["choices"][0]["text"]
        if len(text) > 60 and not killed:
            killed = True
            os.kill(server.engine_pid(), signal.SIGKILL)
    assert killed and text == whole["text"]
    assert len(json.loads(text)) == 60
