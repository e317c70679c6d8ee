"""vLLM's server flags that are not ours: each accepted with a reason, or refused with one (as compat.py does for the
engine). Callers: the server's command line.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from vllm.errors import RefusedError

IGNORED: dict[str, tuple[str, tuple[Any, ...]]] = {
    # flag -> why, and the values that ask for nothing
    "enable_prompt_tokens_details": ("usage always has them", (True,)),
    "enable_offline_docs": ("/docs never needs the network", ()),
    "disable_frontend_multiprocessing": ("front and engine are always two processes", ()),
    "log_error_stack": ("logs always have it", ()),
    "enable_log_deltas": ("--enable-log-outputs tells whole answers", (True,)),
    "h11_max_incomplete_event_size": ("heads are bounded at 64 KiB", (4194304,)),
    "h11_max_header_count": ("heads are bounded at 64 KiB", (256,)),
    "api_server_count": ("one front serves", (1,)),
    "fingerprint_mode": ("system_fingerprint is always made of version and plan", ("full",)),
    "enable_server_load_tracking": ("/load always counts", ()),
    "enable_per_request_metrics": ("see /metrics", ()),
    "enable_scale_out": ("/inference/v1/generate and /abort_requests are always there", ()),
    "exclude_tools_when_tool_choice_none": ("they always are", ()),
    "tool_strict_level": ("tools that say strict are", ("auto",)),
    "cohere_is_reasoning_model": ("Cohere's API is not spoken", (True,)),
    "cohere_format": ("Cohere's API is not spoken", ("cmd4",)),
    "enable_flash_late_interaction": ("nothing here scores pairs of texts", (True,)),
    "data_parallel_supervisor_port": ("there is no supervisor", (9256,)),
    "dp_supervisor_probe_interval_s": ("there is no supervisor", (5, 5.0)),
    "dp_supervisor_probe_timeout_s": ("there is no supervisor", (5, 5.0)),
    "dp_supervisor_probe_failure_threshold": ("there is no supervisor", (3,)),
}
REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tool_parser_plugin": ("it would run other people's code", ()),
    "tool_server": ("there are no built-in tools", ()),
    "middleware": ("it would run other people's code", ()),
    "grpc": ("only HTTP is spoken", ()),
    "grpc_port": ("only HTTP is spoken", ()),
    "headless": ("the engine starts with its front", ()),
    "tokens_only": ("use --skip-tokenizer-init; /inference/v1/generate is always there", ()),
    "enable_tokenizer_info_endpoint": ("use /tokenize and /detokenize", ()),
    "allow_credentials": ("keys are sent as headers, never as cookies", ()),
    "trust_request_chat_template": ("templates come from the model or --chat-template", ()),
    "trust_request_mm_kwargs": ("only text is read", ()),
    "anthropic_disabled_thinking_effort": ("thinking that is disabled is off", ("auto", "none")),
    "fingerprint_value": ("system_fingerprint is always made of version and plan", ()),
    "lora_modules": ("LoRA adapters are not in this version", ()),
}


def add_server_others(parser: argparse.ArgumentParser) -> None:
    """Hidden flags, so that these words can be judged instead of unknown."""
    for name in (*IGNORED, *REFUSED):
        flag = "--" + name.replace("_", "-")
        negation = [] if name.startswith("disable_") else ["--no-" + flag[2:]]
        if flag not in parser._option_string_actions:
            for word in negation:
                parser.add_argument(
                    word, dest=name, action="store_const", const=None, default=argparse.SUPPRESS, help=argparse.SUPPRESS
                )
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
    for name, (why, harmless) in REFUSED.items():
        if not _asks_nothing(given.get(name), harmless):
            flag = "--" + name.replace("_", "-")
            raise RefusedError(f"{flag} is not accepted: {why}.", field=name, remedy="Leave it out.")
    ignored = [
        f"--{name.replace('_', '-')} ({why})"
        for name, (why, harmless) in IGNORED.items()
        if not _asks_nothing(given.get(name), harmless)
    ]
    if ignored:
        log.warning("Ignored: %s.", "; ".join(ignored))


def _asks_nothing(value: Any, harmless: tuple[Any, ...]) -> bool:
    return value in (None, False, "", [], {}, 0) or value in harmless


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
