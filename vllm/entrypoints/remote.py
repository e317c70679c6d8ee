"""A client of few lines for a running server: answers as they stream in, and how fast they came.

Only the standard library, so that `vllm chat` starts at once. Does not know: engines. Called by: cli/chat,
cli/complete.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vllm.errors import ValidationError
from vllm.util import env


class RemoteError(ValueError):
    """The server cannot be reached, or says no; the message says why."""


@dataclass(slots=True)
class Speed:
    """How fast an answer came."""

    began: float
    first: float = 0.0
    ended: float = 0.0
    num_tokens: int = 0

    def text(self) -> str:
        """One line."""
        took = max(self.ended - self.began, 1e-6)  # why: between the first and the last piece may be no time at all
        rate = f"{self.num_tokens / took:.1f} tokens/s"
        return f"{self.num_tokens} tokens in {took:.2f} s, {rate}, first after {self.first - self.began:.3f} s"


class Remote:
    """One server."""

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValidationError.of("url", url, "an address such as http://127.0.0.1:8000/v1")
        self._parts, self._url = parts, url.rstrip("/")
        key = api_key or env.text("VLLM_API_KEY") or env.text("OPENAI_API_KEY")
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def model(self) -> str:
        """The first model that is served."""
        with self._ask("GET", "/models", None) as answer:
            return str(json.load(answer)["data"][0]["id"])

    def stream(self, path: str, body: dict[str, Any], speed: Speed) -> Iterator[dict[str, Any]]:
        """The choices of an answer, as they come. `speed` is filled in on the way."""
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._ask("POST", path, asked) as answer:
            for line in answer:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise RemoteError(event["error"].get("message", "the answer broke off"))
                speed.ended = time.monotonic()
                speed.first = speed.first or speed.ended
                speed.num_tokens = (event.get("usage") or {}).get("completion_tokens", speed.num_tokens)
                yield from event["choices"]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
        parts = self._parts
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = made(parts.hostname or "", parts.port)
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, parts.path.rstrip("/") + path, data, {**self._headers, "Connection": "close"})
            answer = connection.getresponse()
        except OSError as error:
            connection.close()
            reason = error.strerror or str(error)
            raise RemoteError(f"no server answers at {self._url}: {reason}. Start one with: vllm serve") from None
        if answer.status != 200:
            with answer:
                text = answer.read().decode("utf-8", "replace")
            connection.close()
            raise RemoteError(f"the server says {answer.status}: {_message(text)}")
        return answer


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


def converse(ask: Callable[[str], None], words: Sequence[str] | None, prompt: str) -> int:
    """Ask once for `words`, or for every line that is typed until end of input; returns the exit status.

    Ctrl-C ends the answer that is being written, or, at the prompt, the conversation.
    """
    if words is not None:
        ask(" ".join(words))
        return 0
    is_person = sys.stdin.isatty()
    while True:
        try:
            line = input(prompt if is_person else "")
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if not line.strip():
            continue
        try:
            ask(line)
        except KeyboardInterrupt:
            print()
        except RemoteError as error:
            print(error, file=sys.stderr)
            if not is_person:
                return 1
