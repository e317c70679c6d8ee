"""Classes of published weaknesses, tried on a real server from outside; docs/security.md says what stands for what."""

import re
import socket
from pathlib import Path

import pytest

from tests.support.http_server import KEY, Running, serving

MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = {
    # route -> a body that is in order
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/v1/messages": {"model": "tiny", "messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "tiny", "messages": MESSAGES},
    "/api/chat": {"model": "tiny", "messages": MESSAGES, "options": {"num_predict": 2}, "stream": False},
    "/tokenize": {"messages": MESSAGES},
    "/v1/responses/input_tokens": {"input": "Hello"},
}
INSIDES = r"/(usr|home|root|tmp|opt)/|site-packages|\.py\b|0x[0-9a-f]{6,}|Traceback"
KWARGS = ("/v1/chat/completions", "/v1/responses", "/tokenize", "/v1/responses/input_tokens")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("security"), "--served-model-name", "tiny", "--max-model-len", "512") as it:
        yield it


@pytest.mark.parametrize("path", KWARGS)
def test_a_template_of_the_client_is_not_rendered(server: Running, tmp_path: Path, path: str):
    """A file of the server's machine given as the template was once read and tokenised for whoever asked."""
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret that nobody may read")
    for name, value in (
        ("chat_template", str(secret)),
        ("chat_template", "{{ 7 * 7 }}"),
        ("messages", []),
        ("tools", [{"type": "function"}]),
        ("documents", [{}]),
        ("tokenize", False),
        ("content_format", "string"),
        ("__class__", 1),
    ):
        body = {**CHAT[path], "chat_template_kwargs": {name: value}}
        status, answer, _ = server.ask("POST", path, body)
        assert status == 400 and "chat_template_kwargs" in answer["error"]["message"], (name, status, answer)
    assert server.ask("POST", path, {**CHAT[path], "chat_template_kwargs": {"enable_thinking": False}})[0] == 200


def ask_raw(server: Running, head: str, body: bytes = b"") -> bytes:
    """What the server says to these bytes until it ends the connection or 5 s are over."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        got = b""
        try:
            while piece := sock.recv(65536):
                got += piece
        except TimeoutError:
            pass
    return got


def endless(server: Running, path: str, most: int) -> tuple[bytes, int]:
    """(the answer to a body without end, in chunks, how many bytes of it were taken); at most `most` are sent."""
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head.encode())
        try:
            while sent < most:
                sock.sendall(chunk)
                sent += 2**20
        except OSError:
            pass  # it does not listen any more
        try:
            return sock.recv(65536), sent
        except OSError:
            return b"", sent


def resident(server: Running) -> int:
    """Bytes of memory of the server's front."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/tokenize", "/v1/responses"])
def test_a_body_without_end_is_not_taken_in(server: Running, path: str):
    before = resident(server)
    answer, sent = endless(server, path, 256 * 2**20)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:100]
    assert sent < 96 * 2**20, "the server goes on reading what it has refused"
    assert resident(server) - before < 160 * 2**20
    assert server.ask("GET", "/health")[0] == 200


def test_a_body_that_says_it_is_too_long_is_refused_unread(server: Running):
    head = f"POST /v1/completions HTTP/1.1\nHost: x\nAuthorization: Bearer {KEY}\nContent-Length: {2**40}"
    assert ask_raw(server, head, b'{"prompt":').startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "target",
    [
        *("//v1/models", "/v1//models", "/V1/models", "/v1/models/", "/v1/models;x", "/v1/models%2f", "/v1%2fmodels"),
        *("/health/../v1/models", "/health/%2e%2e/v1/models", "/./v1/models", "\\v1\\models", "/v1/models?/health"),
        *("/v1/models#/health", "http://x/v1/models", "http://x/health/../v1/models", "*", "/v1/models%00/health"),
        *("/page/files/../../v1/models", "/page/files/..%2f..%2fv1/models", "/page/files/%2e%2e%2froutes%2fpage.py"),
    ],
)
def test_no_trick_with_the_path_goes_round_the_key(server: Running, target: str):
    for more in ("", "\nX-Original-URL: /v1/models", "\nX-Forwarded-Prefix: /v1", "\nX-HTTP-Method-Override: GET"):
        got = ask_raw(server, f"GET {target} HTTP/1.1\nHost: /v1/models\nConnection: close{more}")
        assert re.match(rb"HTTP/1.1 4\d\d ", got) and b'"tiny"' not in got, got[:200]


def series(server: Running) -> set[str]:
    _, text, _ = server.ask("GET", "/metrics")
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def test_clients_cannot_multiply_series(server: Running):
    def tease(mark: str) -> None:
        for method in ("GET", "POST", mark, f"{mark}X"):
            for path in (
                f"/{mark}",
                f"/v1/models/{mark}",
                f"/v1/responses/{mark}",
                f"/page/files/{mark}",
                "/v1/models",
            ):
                ask_raw(server, f"{method} {path} HTTP/1.1\nHost: x\nConnection: close\nAuthorization: Bearer {KEY}")
        asked = {"prompt": "a", "max_tokens": 1, "user": mark, "request_id": mark, "cache_salt": mark}
        assert server.ask("POST", "/v1/completions", asked)[0] == 200
        assert server.ask("POST", "/v1/completions", {**asked, "model": mark})[0] == 404
        assert server.ask("POST", "/v1/completions", {**asked, mark: 1})[0] == 200

    tease("FIRST")
    series(server)  # its own series come with the first look
    before = series(server)
    for mark in ("SECOND", "THIRD"):
        tease(mark)
    assert series(server) == before
    assert not any("FIRST" in one for one in before)


def test_only_the_port_that_was_asked_for_listens(server: Running):
    """Front and engine speak over sockets without a name."""
    pids = {server.process.pid, server.engine_pid()}
    inodes = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", str(fd.readlink())))
            except OSError:
                continue
    listening = set()
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                listening.add(words[1])
    assert listening == {f"0100007F:{server.port:04X}"}
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert not [words for words in named if words[6] in inodes and len(words) > 7]


def test_what_is_wrong_is_told_without_our_insides(server: Running):
    """Errors of every family on hostile bodies: no path, no module, no repr of an object, and bounded."""
    long = "x" * 100_000
    assert server.ask("POST", "/detokenize", {"model": long, "tokens": [1]})[0] == 400
    for path, good in CHAT.items():
        for bad in (
            {**good, "messages": [{"role": long, "content": long}], "input": [{"type": long}]},
            {**good, "messages": [{"role": "user", "content": [{"type": long}]}], "input": [{"role": "user"}]},
            {**good, "temperature": long, "options": {"temperature": long}, "max_tokens": long, "input": {}},
            {**good, "model": long},
            {**good, "tools": [{"type": "function", "function": {"name": long, "parameters": 1}}]},
            {**good, "chat_template_kwargs": {long: 1}, "messages": long},
        ):
            status, answer, _ = server.ask("POST", path, bad)
            text = answer if isinstance(answer, str) else str(answer)
            if status >= 400:
                assert status < 500, (path, text[:300])
                assert len(text) < 2000, (path, len(text), text[:300])
                assert not re.search(
                    r"/(usr|home|root|work|tmp|opt)/|site-packages|\.py\b|0x[0-9a-f]{6,}|Traceback", text
                )
