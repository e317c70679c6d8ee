"""One streamed request of the OpenAI API, and when each piece of its answer came.

Does not know: how many requests there are. Called by: serve.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vllm.entrypoints.bench.http import Connections, HttpError
from vllm.entrypoints.bench.samples import Sample
from vllm.errors import ValidationError


@dataclass(slots=True)
class Outcome:
    """How a request went. Moments are of `time.perf_counter`."""

    prompt_len: int
    output_len: int = 0
    began: float = 0.0
    ended: float = 0.0
    moments: list[float] = field(default_factory=list)
    """When pieces of the answer came."""
    error: str = ""
    text: str = ""

    @property
    def latency(self) -> float:
        """Seconds from asking to the end."""
        return self.ended - self.began

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.moments[0] - self.began

    @property
    def itls(self) -> list[float]:
        """Seconds between pieces."""
        return [later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)]

    @property
    def tpot(self) -> float:
        """Seconds per output token after the first; 0 where there is but one."""
        return (self.latency - self.ttft) / (self.output_len - 1) if self.output_len > 1 else 0.0


def body_of(sample: Sample, backend: str, model: str, extra: dict[str, Any]) -> bytes:
    """The JSON of a request."""
    if backend == "openai-chat":
        if not isinstance(sample.prompt, str):
            raise ValidationError("backend openai-chat needs prompts as text, so a tokenizer.", field="tokenizer")
        content = {"messages": [{"role": "user", "content": sample.prompt}], "max_completion_tokens": sample.output_len}
    else:
        content = {"prompt": sample.prompt, "max_tokens": sample.output_len}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps({"model": model, **content, **streamed, **extra}).encode()


async def ask(connections: Connections, path: str, body: bytes, prompt_len: int) -> Outcome:
    """Make the request and follow its answer; a failure is an outcome with `error`."""
    outcome = Outcome(prompt_len)
    outcome.began = time.perf_counter()
    told = False
    rest = b""
    try:
        async with contextlib.aclosing(connections.ask("POST", path, body)) as parts:
            async for data in parts:
                now = time.perf_counter()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    told |= _take(line, outcome, now)
    except (HttpError, OSError, msgspec.DecodeError) as error:
        outcome.error = outcome.error or str(error) or type(error).__name__
    if not outcome.error and not outcome.moments:
        outcome.error = "the answer has no token"
    if not told:
        outcome.output_len = len(outcome.moments)
    return outcome


def _take(line: bytes, outcome: Outcome, now: float) -> bool:
    """One line of the stream; True when it says how many tokens there were."""
    if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
        return False
    event = msgspec.json.decode(line[5:])
    if "error" in event:
        error = event["error"]
        outcome.error = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        return False
    for choice in event.get("choices") or ():
        delta = choice.get("delta")
        said = choice.get("text") if delta is None else delta.get("content")
        thought = delta and (delta.get("reasoning") or delta.get("reasoning_content") or delta.get("tool_calls"))
        # why: a chunk that only opens (the role) or only closes (the reason) is no token; one of a token whose text is
        # still held back is.
        if said or thought or (not choice.get("finish_reason") and not (delta and "role" in delta)):
            outcome.moments.append(now)
        outcome.text += said or ""
        outcome.ended = now
    usage = event.get("usage")
    if usage and usage.get("completion_tokens") is not None:
        outcome.output_len = usage["completion_tokens"]
        return True
    return False
