"""vLLM's server flags that are not ours: each accepted with a reason, or refused with one (as compat.py does for the
engine). Callers: the server's command line.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from vllm.errors import RefusedError

IGNORED = {
    "enable_prompt_tokens_details": "usage always has them",
    "disable_fastapi_docs": "there are no such pages",
    "enable_offline_docs": "there are no such pages",
    "enable_request_id_headers": "an answer's id carries X-Request-Id",
    "disable_frontend_multiprocessing": "front and engine are always two processes",
    "disable_access_log_for_endpoints": "use --disable-uvicorn-access-log",
    "log_error_stack": "logs always have it",
    "h11_max_incomplete_event_size": "heads are bounded at 64 KiB",
    "h11_max_header_count": "heads are bounded at 64 KiB",
    "api_server_count": "one front serves",
    "fingerprint_mode": "answers carry no fingerprint",
    "enable_server_load_tracking": "see /metrics",
    "enable_per_request_metrics": "see /metrics",
    "exclude_tools_when_tool_choice_none": "they always are",
    "tool_strict_level": "tools that say strict are",
}
REFUSED = {
    "tool_parser_plugin": "it would run other people's code",
    "tool_server": "there are no built-in tools",
    "middleware": "it would run other people's code",
    "uds": "only TCP is listened on; use --host and --port",
    "ssl_ca_certs": "client certificates are not checked in this version",
    "ssl_cert_reqs": "client certificates are not checked in this version",
    "ssl_ciphers": "Python's own choice of ciphers is used",
    "enable_ssl_refresh": "certificates are read once",
    "grpc": "only HTTP is spoken",
    "headless": "the engine starts with its front",
    "allow_credentials": "keys are sent as headers, never as cookies",
    "trust_request_chat_template": "templates come from the model or --chat-template",
    "default_chat_template_kwargs": "it is not in this version",
    "response_role": "answers come from the assistant",
    "return_tokens_as_token_ids": "ask for it in the request",
    "lora_modules": "LoRA adapters are not in this version",
    "sse_keep_alive_interval": "it is not in this version",
}


def add_server_others(parser: argparse.ArgumentParser) -> None:
    """Hidden flags, so that these words can be judged instead of unknown."""
    for name in (*IGNORED, *REFUSED):
        flag = "--" + name.replace("_", "-")
        if flag not in parser._option_string_actions:
            parser.add_argument(
                flag,
                dest=name,
                nargs="?",
                const=True,
                type=_value,
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )


def judge_server_others(arguments: argparse.Namespace, log: logging.Logger) -> None:
    """One line for the ignored ones. Raises RefusedError for a refused one."""
    given = vars(arguments)
    for name, why in REFUSED.items():
        if given.get(name) not in (None, False, "", [], {}, 0):
            flag = "--" + name.replace("_", "-")
            raise RefusedError(f"{flag} is not accepted: {why}.", field=name, remedy="Leave it out.")
    ignored = [f"--{name.replace('_', '-')} ({why})" for name, why in IGNORED.items() if given.get(name)]
    if ignored:
        log.warning("Ignored: %s.", "; ".join(ignored))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
