"""What the user said about the HTTP server.

Does not know: engines. Callers: entrypoints (the server's command line).
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.config.knob import knob, settle
from vllm.errors import ValidationError

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
CONTENT_FORMATS = ("auto", "string", "openai")


@dataclass(frozen=True, kw_only=True)
class ServerArgs:
    """The server section."""

    host: str = knob("127.0.0.1", "str", "address to listen on; 0.0.0.0 opens the server to the network")
    port: int = knob(8000, "int", "port to listen on; 0 takes a free one", high=65535)
    api_key: tuple[str, ...] | None = knob(None, "strings", "keys that clients must send", repr=False)
    allowed_origins: tuple[str, ...] | None = knob(None, "strings", "web origins that may call (CORS); none by default")
    ssl_keyfile: str | None = knob(None, "str", "TLS key file")
    ssl_certfile: str | None = knob(None, "str", "TLS certificate file")
    root_path: str = knob("", "str", "path prefix that a proxy in front takes off")
    uvicorn_log_level: str = knob("info", "str", "level of the HTTP server's own log", choices=LOG_LEVELS)
    disable_uvicorn_access_log: bool = knob(False, "bool", "no line per HTTP request")
    chat_template_content_format: str = knob("auto", "str", "what templates get as content", choices=CONTENT_FORMATS)
    enable_auto_tool_choice: bool = knob(True, "bool", "the model may call tools where the request leaves it open")
    tool_call_parser: str = knob(
        "auto", "str", "how the model writes tool calls; auto: as its chat template shows; none: they are text"
    )
    enable_force_include_usage: bool = knob(False, "bool", "every stream ends with its usage")
    strict_fields: bool = knob(False, "bool", "refuse request fields that nobody knows, instead of naming them")
    shutdown_timeout: int = knob(30, "int", "seconds that open requests get to finish after SIGTERM")

    def __post_init__(self) -> None:
        settle(self)
        if any(not key for key in self.api_key or ()):
            raise ValidationError("api_key must not be empty.", field="api_key")
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise ValidationError("ssl_keyfile and ssl_certfile are needed together.", field="ssl_certfile")
