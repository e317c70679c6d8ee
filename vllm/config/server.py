"""What the user said about the HTTP server: its socket (listen), its answers, its log.

Does not know: engines. Callers: entrypoints (the server's command line).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.config.knob import knob, settle
from vllm.config.listen import ListenArgs

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
CONTENT_FORMATS = ("auto", "string", "openai")


@dataclass(frozen=True, kw_only=True)
class AnswerArgs:
    """The section of what requests may say and what answers hold."""

    chat_template_content_format: str = knob("auto", "str", "what templates get as content", choices=CONTENT_FORMATS)
    enable_auto_tool_choice: bool = knob(True, "bool", "the model may call tools where the request leaves it open")
    tool_call_parser: str = knob(
        "auto", "str", "how the model writes tool calls; auto: as its chat template shows; none: they are text"
    )
    default_chat_template_kwargs: dict[str, Any] | None = knob(
        None, "json", "variables for the chat template, under those of a request"
    )
    response_role: str = knob("assistant", "str", "role of the messages that chat answers")
    return_tokens_as_token_ids: bool = knob(False, "bool", "tokens in logprobs are shown as token_id:7")
    enable_force_include_usage: bool = knob(False, "bool", "every stream ends with its usage")
    enable_request_id_headers: bool = knob(False, "bool", "answers carry X-Request-Id")
    strict_fields: bool = knob(False, "bool", "refuse request fields that nobody knows, instead of naming them")
    sse_keep_alive_interval: float = knob(0.0, "float", "seconds of silence until a stream says it lives; 0: never")
    max_stored_responses: int = knob(1000, "int", "answers of /v1/responses kept for later requests; 0: none")
    disable_fastapi_docs: bool = knob(False, "bool", "no /docs and no /openapi.json")
    shutdown_timeout: int = knob(30, "int", "seconds that open requests get to finish after SIGTERM")

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True, kw_only=True)
class LogArgs:
    """The section of the server's log."""

    uvicorn_log_level: str = knob("info", "str", "level of the HTTP server's own log", choices=LOG_LEVELS)
    disable_uvicorn_access_log: bool = knob(False, "bool", "no line per HTTP request")
    disable_access_log_for_endpoints: str = knob("", "str", "paths without a line, with commas: /health,/metrics")
    enable_log_outputs: bool = knob(False, "bool", "with --enable-log-requests, answers too")
    fail_on_environ_validation: bool = knob(False, "bool", "an unknown VLLM_ variable ends the start")

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True, kw_only=True)
class ServerArgs(LogArgs, AnswerArgs, ListenArgs):
    """All that belongs to the HTTP server."""

    def __post_init__(self) -> None:
        ListenArgs.__post_init__(self)
