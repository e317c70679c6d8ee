"""How a server starts, and what it says when it cannot."""

import ctypes
import errno
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import vllm
from tests.support.http_server import KEY, serving, wait_for
from vllm.config.listen import ListenArgs
from vllm.entrypoints.openai.listen import listen
from vllm.errors import ValidationError


def start(*flags: str, preexec_fn=None, **environment: str) -> subprocess.CompletedProcess:
    """Run the server as vLLM's users start it, until it ends."""
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
    env = {**os.environ, **environment}
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=env, preexec_fn=preexec_fn)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--host", "203.0.113.1", "--port", "0"], "cannot listen on 203.0.113.1:0"),
        (["--ssl-certfile", "{bad}", "--ssl-keyfile", "{bad}", "--port", "0"], "cannot be used"),
        (["--ssl-certfile", "{none}", "--ssl-keyfile", "{none}", "--port", "0"], "No such file"),
        (["--ssl-certfile", "{bad}"], "needed together"),
        (["--config", "{none}"], "No such file"),
        (["--config", "{bad}"], "mapping of flag to value"),
        (["--api-key-file", "{none}"], "No such file"),
        (["--uds", "{none}/x/y.sock"], "cannot listen on"),
        (["--tool-server", "demo"], "--tool-server is not accepted"),
        (["--prot", "8000"], "Did you mean '--port'"),
        (["--port", "99999"], "port must be an integer in [0, 65535]"),
        (["--max-model-len", "many"], "max-model-len"),
        (["--otlp-traces-endpoint", "ftp://x", "--port", "0"], "otlp_traces_endpoint"),
    ],
)
def test_one_line_says_what_stops_it(tmp_path: Path, flags: list[str], says: str):
    (tmp_path / "bad").write_text("not what it should be")
    places = {"{bad}": str(tmp_path / "bad"), "{none}": str(tmp_path / "none")}
    for mark, place in places.items():
        flags = [flag.replace(mark, place) for flag in flags]
    done = start(*flags)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("usage:") and line[:1] != " "]) == 1


def as_nobody() -> None:
    """In a child: root's right to open every file and every port is given up."""
    for capability in (1, 2, 10):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_what_may_not_be_read_or_bound_is_named_in_one_line(tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(Path(vllm.__file__).parent / "builtin", model)
    (tmp_path / "pem").write_text("nothing")
    (tmp_path / "key").write_text("nothing")
    weights, config = model / "model.safetensors", model / "config.json"
    tls = ("--ssl-certfile", str(tmp_path / "pem"), "--ssl-keyfile", str(tmp_path / "key"))
    cases = [(tmp_path / "key", tls), (tmp_path / "pem", tls), (weights, ("--model", str(model)))]
    cases.append((config, ("--model", str(model))))
    for secret, flags in cases:
        secret.chmod(0)
        done = start("--port", "0", *flags, preexec_fn=as_nobody)
        secret.chmod(0o600)
        lines = [line for line in done.stderr.splitlines() if "INFO" not in line]
        assert done.returncode != 0 and len(lines) == 1, done.stderr
        assert f"{secret}: Permission denied. Let the user who runs " in lines[0]
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 80:
        done = start("--port", "80", preexec_fn=as_nobody)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "127.0.0.1:80: Permission denied. Ports below 1024 belong to root" in done.stderr


def test_an_unknown_variable_can_end_the_start():
    done = start("--fail-on-environ-validation", VLLM_NO_SUCH_THING="1")
    assert done.returncode == 2
    assert "VLLM_NO_SUCH_THING" in done.stderr.splitlines()[-1]


def test_a_port_that_is_not_ours(monkeypatch):
    def refuse(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", type("Refusing", (socket.socket,), {"bind": refuse}))
    with pytest.raises(ValidationError, match=r"listen on 127\.0\.0\.1:80: Permission denied\. Ports below 1024"):
        listen(ListenArgs(port=80))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def test_a_unix_socket_with_keys_of_a_file_from_a_config(tmp_path: Path):
    path, keys, config = tmp_path / "api.sock", tmp_path / "keys", tmp_path / "serve.yaml"
    keys.write_text("first\nsecond\n")
    config.write_text(f"uds: {path}\napi_key_file: {keys}\nserved-model-name: [tiny, also]\nmax-model-len: 128\n")
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(path))
    stale.close()  # the file stays, as after a kill -9
    log = tmp_path / "log"
    words = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "--config", str(config)]
    with log.open("w") as out:
        process = subprocess.Popen(words, stderr=out, stdout=out)
    try:
        wait_for(lambda: "Ready: unix:" in log.read_text() or process.poll() is not None, 60, "readiness")
        assert path.stat().st_mode & 0o777 == 0o600
        for key, status in (("first", 200), ("second", 200), ("third", 401)):
            connection = UnixConnection(path)
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            assert answer.status == status
            told = json.loads(answer.read())
            connection.close()
            if status == 200:
                assert [card["id"] for card in told["data"]] == ["tiny", "also"]
                assert told["data"][0]["max_model_len"] == 128
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not path.exists()


def test_tls_cors_and_logs(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    try:
        subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl command is not here")
    flags = ["--ssl-keyfile", str(key), "--ssl-certfile", str(certificate), "--enable-log-requests"]
    flags += ["--enable-log-outputs", "--max-log-len", "12", "--disable-access-log-for-endpoints", "/health,/ping"]
    flags += ["--enable-request-id-headers", "--enable-force-include-usage", "--return-tokens-as-token-ids"]
    flags += ["--allowed-origins", "https://a.example", "--allowed-methods", "POST"]
    with serving(tmp_path, *flags) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False

        def ask(method: str, path: str, body=None, **headers: str):
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context)
            headers["Authorization"] = f"Bearer {KEY}"
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer, text

        assert ask("GET", "/health")[0].status == 200
        ask("GET", "/version")
        body = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, "logprobs": 1}
        answer, text = ask(
            "POST", "/v1/completions", body, **{"X-Request-Id": "seen-again", "Origin": "https://a.example"}
        )
        assert answer.headers["x-request-id"] == "seen-again"
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert json.loads(text)["id"] == "cmpl-seen-again"
        assert json.loads(text)["choices"][0]["logprobs"]["tokens"][0].startswith("token_id:")
        answer, text = ask("POST", "/v1/completions", {**body, "stream": True})
        assert '"usage":{' in text.split("\n\n")[-3]
        asked = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
        assert ask("OPTIONS", "/v1/completions", **asked)[0].status == 400
    log = server.log.read_text()
    assert "Request cmpl-seen-again: 5 tokens, 'The capital ...', SamplingParams(" in log
    assert "Request cmpl-seen-again ended: stop, 3 tokens in " in log
    assert '"GET /version HTTP/1.1" 200' in log
    assert "/health" not in log
    assert KEY not in log
