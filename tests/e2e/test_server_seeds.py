"""Values that nobody should send, in every field of every route: each is answered or refused, and nothing else.

schemathesis (test_more_clients) keeps to what the schemas say; these seeds do not.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.http_server import Running, serving

MESSAGES = [{"role": "user", "content": "Hello"}]
BODIES = {
    "/v1/completions": {"prompt": "a", "max_tokens": 2},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/chat/completions/batch": {"messages": [MESSAGES], "max_tokens": 2},
    "/inference/v1/generate": {"token_ids": [5, 6], "sampling_params": {"max_tokens": 2}},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/v1/responses/input_tokens": {"input": "Hello"},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "tiny", "messages": MESSAGES},
    "/api/chat": {"model": "tiny", "messages": MESSAGES, "options": {"num_predict": 2}, "stream": False},
    "/api/generate": {"model": "tiny", "prompt": "a", "options": {"num_predict": 2}, "stream": False},
    "/api/show": {"model": "tiny"},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [5]},
    "/v1/embeddings": {"input": "a"},
    "/abort_requests": {"request_ids": ["a"]},
}
ODD = ("vllm_xargs", "extra_args", "structured_outputs", "response_format", "guided_json", "guided_regex", "logit_bias")
ODD += ("kv_transfer_params", "mm_processor_kwargs", "repetition_detection", "metadata", "options", "nobody_knows")
SEEDS = (  # as they stand in a body
    *("null", "true", "-1", "0", "9223372036854775808", "-9223372036854775809", "1" + 40 * "0"),
    *("NaN", "-Infinity", "1e400", "1e-400", "-0.0", '""', '"a"', r'"\u0000"', r'"\ud800"', '"' + 10**5 * "x" + '"'),
    *("[]", "[null]", "[[]]", '["a"]', "[1180591620717411303424]", "[NaN]", "[{}]", "{}", '{"a": null}', '{"1": null}'),
    *('{"a": 1180591620717411303424}', '{"a": 1e400}', '{"a": [NaN]}', '{"1": 1e400}', '{"": 1}', '{"a": 1, "a": "b"}'),
    *(
        '{"json": true}',
        '{"json": []}',
        '{"json": {"const": 1180591620717411303424}}',
        '{"grammar": 1}',
        '{"regex": 1}',
    ),
    *('{"json": "{"}', '{"choice": [1]}', '{"structural_tag": 1}', '{"json": {}, "whitespace_pattern": 1}'),
    *('{"type": null}', '{"type": "json_schema", "json_schema": {"schema": {"type": 1180591620717411303424}}}'),
    *(
        '[{"role": "user"}]',
        '[{"role": "assistant", "tool_calls": [{}]}]',
        '[{"role": "user", "content": [{"text": 1}]}]',
    ),
    *(199 * "[" + 199 * "]", 190 * '{"a":' + "1" + 190 * "}"),
)
WHOLE = (
    *(b"", b"null", b"[]", b'"a"', b"{", b"\xff\xfe", b'{"prompt": "\xff"}', b"\xef\xbb\xbf{}", b"{}" * 9),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"prompt":' + b"9" * 5000 + b"}"),
)
LARGE = {
    "/v1/chat/completions": b'{"max_tokens": 2, "messages": [{"role": "user", "content": "'
    + b"x" * 10_000_000
    + b'"}]}',
    "/v1/completions": b'{"max_tokens": 2, "prompt": "' + b"x " * 200_000 + b'"}',
    "/v1/responses": b'{"max_output_tokens": 2, "input": "' + b"x" * 10_000_000 + b'"}',
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, program = tmp_path_factory.mktemp("seeds"), "tests.fakes.counting_server"
    with serving(folder, "--served-model-name", "tiny", "--disable-uvicorn-access-log", keys=(), program=program) as it:
        yield it


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """With a model that computes: log-probabilities, grammars, thoughts."""
    flags = "--served-model-name", "tiny", "--max-model-len", "512", "--disable-uvicorn-access-log"
    with serving(tmp_path_factory.mktemp("real"), *flags, keys=()) as it:
        yield it


class Client:
    """One connection, made again where the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def told(self, path: str, body: bytes) -> tuple[int, bytes]:
        """The status, and the beginning of the answer."""
        try:
            self._connection.request("POST", path, body)
            answer = self._connection.getresponse()
            return answer.status, answer.read()[:300]
        except (ConnectionError, http.client.HTTPException):
            self.close()
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            self._connection.request("POST", path, body)
            answer = self._connection.getresponse()
            return answer.status, answer.read()[:300]

    def close(self) -> None:
        """Leave."""
        self._connection.close()


def with_value(body: dict, place: tuple[str, ...], value: str) -> bytes:
    """The body with a text in place of one of its fields, or beside them."""
    made = json.loads(json.dumps(body))
    at = made
    for name in place[:-1]:
        at[name] = at = at[name] if isinstance(at.get(name), dict) else {}
    at[place[-1]] = "@"
    return json.dumps(made).replace('"@"', value).encode()


def fields(document: dict, schema: dict, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Every field that a schema names, two levels deep."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for one in schema.get("anyOf", ()):
        yield from fields(document, one, depth)
    for name, below in schema.get("properties", {}).items():
        yield (name,)
        if depth < 1:
            yield from ((name, *rest) for rest in fields(document, below, depth + 1))


def sound(server: Running, path: str, places: list[tuple[str, ...]]) -> None:
    """No seed in any of these fields is a failure of ours, and the engine is the same afterwards."""
    pid, before = server.engine_pid(), len(server.log.read_text())
    with closing(Client(server.port)) as client:
        for place in places:
            for seed in SEEDS:
                status, answer = client.told(path, with_value(BODIES[path], place, seed))
                assert 200 <= status < 500, (place, seed[:80], status, answer)
        assert client.told("/v1/completions", b'{"prompt": "a", "max_tokens": 2}')[0] == 200
    assert server.engine_pid() == pid and " failed." not in server.log.read_text()[before:]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_no_seed_in_an_extension_field_fails(server: Running, path: str):
    sound(server, path, [(name,) for name in ODD])


@pytest.mark.slow
@pytest.mark.parametrize("path", BODIES)
def test_no_seed_in_any_field_fails(real: Running, path: str):
    document = real.ask("GET", "/openapi.json")[1]
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    sound(real, path, list(dict.fromkeys([*fields(document, body), *((name,) for name in ODD)])))


def test_no_body_fails(server: Running):
    with closing(Client(server.port)) as client:
        for path in BODIES:
            for body in (*WHOLE, LARGE.get(path, b"")):
                status, answer = client.told(path, body)
                assert 200 <= status < 500, (path, body[:80], status, answer)
