"""What Ollama's streams are made of: JSON lines, moments and durations. Called by: routes."""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from vllm.entrypoints.ollama.errors import ollama_error
from vllm.entrypoints.openai.logprobs import TokenBytes, chat_logprobs
from vllm.entrypoints.openai.stream import Form
from vllm.outputs import CompletionOutput, RequestStateStats

_json = msgspec.json.Encoder().encode
LINES = Form("application/x-ndjson", lambda error: ollama_error(error) + b"\n", b"\n")


def line(told: dict[str, Any]) -> bytes:
    """One object of a stream."""
    return _json(told) + b"\n"


def moment(seconds: float | None = None) -> str:
    """Now, or a moment given in seconds since 1970."""
    at = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ending(reason: str, m: RequestStateStats, num_prompt: int, num_new: int) -> dict[str, Any]:
    """What the last object says; durations are in nanoseconds."""

    def ns(seconds: float) -> int:
        return max(0, int(seconds * 1e9))

    return {
        "done": True,
        "done_reason": reason,
        "total_duration": ns(time.monotonic() - m.queued_ts),
        "load_duration": ns(m.scheduled_ts - m.queued_ts) if m.scheduled_ts else 0,
        "prompt_eval_count": num_prompt,
        "prompt_eval_duration": ns(m.first_token_ts - m.scheduled_ts) if m.first_token_ts else 0,
        "eval_count": num_new,
        "eval_duration": ns(m.last_token_ts - m.first_token_ts) if m.first_token_ts else 0,
    }


def logprobs(c: CompletionOutput, wanted: int, spell: TokenBytes | None) -> list[dict[str, Any]]:
    """Ollama's list: as OpenAI's chat has it, without the wrapper."""
    found: list[dict[str, Any]] = chat_logprobs(c.token_ids, c.logprobs or (), wanted, False, spell)["content"]
    return found
