"""What a client may learn: nothing of our insides from errors, nothing about keys from the time a check takes."""

import asyncio
import hashlib
import hmac
import json
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from vllm.config.args import EngineArgs
from vllm.config.server import ServerArgs
from vllm.engine.front import Front
from vllm.entrypoints.anthropic.routes import messages
from vllm.entrypoints.ollama.lines import LINES
from vllm.entrypoints.openai.app import FAMILIES, make_app
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.metrics import Metrics
from vllm.entrypoints.openai.responses import making
from vllm.entrypoints.openai.state import Server
from vllm.entrypoints.openai.stream import SSE, EventStream, Stream
from vllm.util.catalog import Catalogue

SECRET = "/home/alice/.cache/model <EngineCore-0x7f12ab34cd56> hf_sEcReT"
KEYS = ("short", "a-key-that-is-much-longer-than-the-other-one-" * 20)


def make_server(*keys: str) -> Server:
    args = EngineArgs()
    return Server(args, ServerArgs(api_key=keys or None), Front(args), Metrics("tiny"))


def closed_routes() -> list[tuple[str, str, str]]:
    """(family, method, path) of every route that asks for a key."""
    found = []
    for family, _ in FAMILIES:
        catalogue = Catalogue(f"vllm.entrypoints.{family}.routes", "route")
        for path in catalogue.names():
            module = catalogue.load(path)
            found += [(family, method, path) for method in module.METHODS if not module.IS_OPEN]
    return found


async def call(app, method: str, path: str, **more) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **more)


def told(family: str, body: bytes) -> str:
    """The message of an error, which must be in the family's own shape."""
    error = json.loads(body)
    if family == "anthropic":
        assert error["type"] == "error" and set(error["error"]) == {"type", "message"}
        return error["error"]["message"]
    if family == "ollama":
        assert set(error) == {"error"}
        return error["error"]
    assert set(error["error"]) == {"message", "type", "param", "code"}
    return error["error"]["message"]


@pytest.mark.parametrize(("family", "method", "path"), closed_routes())
def test_a_failure_of_ours_tells_nothing(monkeypatch, family: str, method: str, path: str):
    def fail(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Server, "check_key", fail)
    answer = asyncio.run(call(make_app(make_server()), method, path.replace("{", "").replace("}", ""), json={}))
    assert answer.status_code == 500
    assert told(family, answer.content) == "The server failed on this request; its log says more."
    assert not any(word in repr(answer.headers) + answer.text for word in SECRET.split())


@pytest.mark.parametrize("form", [SSE, making.FORM, messages._FORM, LINES], ids=lambda form: form.failed.__module__)
def test_a_failure_in_mid_stream_tells_nothing_but_in_the_log(form, caplog):
    async def events():
        yield b"first"
        raise RuntimeError(SECRET)

    async def run() -> bytes:
        sent = []

        async def send(message) -> None:
            sent.append(message.get("body", b""))

        async def receive():
            await asyncio.Event().wait()

        stream = await EventStream.begun(SimpleNamespace(receive=receive), Stream(events(), {}, lambda: None, form))
        await stream({}, receive, send)
        return b"".join(sent)

    text = asyncio.run(run()).decode()
    assert text.startswith("first") and "The server failed on this request" in text
    assert not any(word in text for word in SECRET.split())
    assert SECRET in caplog.text


@pytest.mark.parametrize(("family", "method", "path"), closed_routes())
def test_every_route_but_the_probes_and_the_page_asks_for_a_key(family: str, method: str, path: str):
    app, place = make_app(make_server(*KEYS)), path.replace("{", "").replace("}", "")
    for headers in (
        {},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEYS[0]}"},
        {"x-api-key": KEYS[0][:-1]},
    ):
        answer = asyncio.run(call(app, method, place, json={}, headers=headers))
        assert answer.status_code == 401
        assert "key" in told(family, answer.content)


def test_what_is_open_is_meant_to_be():
    server = make_app(make_server(*KEYS))
    closed = {path for _, _, path in closed_routes()}
    assert {route.path for route in server.routes} - closed == {"/", "/page/files/{name}", "/health", "/ping"}


@pytest.mark.parametrize("given", [KEYS[0], KEYS[1], "short!", "", "k" * 5000])
def test_a_key_is_compared_with_all_and_in_equal_lengths(monkeypatch, given: str):
    """So the time tells neither which key fits, nor how long it is, nor how many letters were right."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("vllm.entrypoints.openai.state.hmac", SimpleNamespace(compare_digest=compare))
    server, request = make_server(*KEYS), SimpleNamespace(headers={"authorization": f"Bearer {given}"})
    try:
        server.check_key(request)
    except HttpError as error:
        assert error.status == 401 and given not in KEYS
    else:
        assert given in KEYS
    assert len(compared) == len(KEYS)
    assert {len(one) for pair in compared for one in pair} == {hashlib.sha256().digest_size}


def test_names_cannot_break_out_of_labels():
    name = 'a"} 1\nvllm:made_up{b="\\'
    metrics = Metrics(name)
    metrics.on_http("/v1/models", "GET", 200, 0.1)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    assert not any(family.name.startswith("vllm:made_up") for family in families)
    labels = {sample.labels.get("model_name", name) for family in families for sample in family.samples}
    assert labels == {name}
