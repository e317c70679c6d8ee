"""Functions that other people's tools import from vLLM beside the engine itself.

Does not know: requests. Callers: lm-eval and users' scripts, through the facade modules.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from pathlib import Path
from typing import Any

from vllm.tokenizer.tokenizer import Tokenizer


def get_tokenizer(
    tokenizer_name: str | Path,
    *args: Any,
    tokenizer_mode: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    download_dir: str | None = None,
    **overrides: Any,
) -> Tokenizer:
    """The tokenizer of a folder or hub id, able to apply chat templates; `overrides` as in tokenizer_config.json."""
    del args
    from vllm.chat.template import with_chat
    from vllm.loading.resolve import resolve_model
    from vllm.tokenizer.load import has_tokenizer, load

    folder = Path(tokenizer_name)
    if not has_tokenizer(folder):
        folder = resolve_model(str(tokenizer_name), revision=revision, download_dir=download_dir, weights=False)
    return with_chat(load(folder, tokenizer_mode, revision, trust_remote_code, **overrides))


def resolve_chat_template(
    tokenizer: Tokenizer, chat_template: str | None = None, tools: Any = None, **_: Any
) -> str | None:
    """The text of the chat template that would be used, None when there is none."""
    from vllm.chat.template import template_text
    from vllm.errors import ChatTemplateError

    if chat_template is None and tokenizer.chat_template is None:
        return None
    with contextlib.suppress(ChatTemplateError):
        return template_text(tokenizer, chat_template, tools)
    return None


def get_open_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def random_uuid() -> str:
    """32 random hexadecimal digits."""
    return uuid.uuid4().hex


def load_chat_template(chat_template: str | Path | None, *, is_literal: bool = False) -> str | None:
    """The text of a chat template: that of the file, or the template itself. Raises ValueError where it is neither."""
    from vllm.errors import ValidationError

    if chat_template is None or is_literal:
        return None if chat_template is None else str(chat_template)
    with contextlib.suppress(OSError):
        return Path(chat_template).read_text("utf-8")
    if not {"{", "}", "\n"} & set(str(chat_template)):
        raise ValidationError.of("chat_template", str(chat_template), "a file, or a template with {{ }} in it")
    return str(chat_template)
