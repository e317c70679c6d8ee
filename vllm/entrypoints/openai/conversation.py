"""Messages of a request as token ids, through the model's chat template.

Does not know: what is generated. Invariant: a template is a program of somebody else's, so it runs in a thread, under
the sandbox's limits. Called by: routes/chat, routes/tokenize.
"""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, Protocol

from vllm.chat.template import render, thinks_by_default
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.schemas import Tool
from vllm.entrypoints.openai.state import Server
from vllm.errors import ValidationError

_OURS = frozenset(inspect.signature(render).parameters)
"""Arguments of the rendering itself; everything else is a variable of the template."""


class Conversation(Protocol):
    """The fields that both routes have."""

    @property
    def messages(self) -> Any: ...

    @property
    def tools(self) -> Sequence[Tool] | None: ...

    @property
    def add_generation_prompt(self) -> bool: ...

    @property
    def continue_final_message(self) -> bool: ...

    @property
    def chat_template_kwargs(self) -> dict[str, Any] | None: ...

    @property
    def add_special_tokens(self) -> bool | None: ...


async def conversation_ids(server: Server, body: Conversation, **variables: Any) -> tuple[str, list[int]]:
    """(text, ids) of the prompt. Raises ChatTemplateError; one for a model without a template names --chat-template."""
    tokenizer = server.tokenizer
    if tokenizer.chat_template is None and server.engine_args.chat_template is None:
        raise HttpError(400, "This model has no chat template; start the server with --chat-template, or use prompts.")
    options = _options(server, body, variables)

    def make() -> tuple[str, list[int]]:
        text = render(tokenizer, body.messages, **options)
        server.front.model.intake.refuse_endless(text)
        # why: a template writes its own special tokens
        return text, tokenizer.encode(text, add_special_tokens=bool(body.add_special_tokens))

    return await asyncio.to_thread(make)


async def may_think(server: Server, body: Conversation, text: str, **variables: Any) -> bool:
    """Whether the answer to the prompt `text` of this conversation may begin with thoughts."""
    options = _options(server, body, variables)
    return await asyncio.to_thread(thinks_by_default, server.tokenizer, body.messages, text, **options)


def _options(server: Server, body: Conversation, variables: dict[str, Any]) -> dict[str, Any]:
    """What the template is rendered with. Raises ValidationError for a variable that a request may not set."""
    for name in body.chat_template_kwargs or ():
        if name in _OURS:  # why: chat_template, for one, may name a file of this machine
            raise ValidationError(f"chat_template_kwargs may not set {name!r}.", field="chat_template_kwargs")
    return {
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or ()] or None,
        "chat_template": server.engine_args.chat_template,
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
        "content_format": server.args.chat_template_content_format,
        **(server.args.default_chat_template_kwargs or {}),
        **variables,
        **(body.chat_template_kwargs or {}),
    }
