"""Classes of published weaknesses, tried on a real server from outside; docs/security.md says what stands for what."""

from pathlib import Path

import pytest

from tests.support.http_server import Running, serving

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
