"""A conversation as the text a model was trained to continue.

    messages, tools ─ normalize ─▶ template in its sandbox ─▶ text        (special tokens are in it: encode adds none)

Does not know: HTTP, the engine, media. Invariant: equal to what transformers renders from the same template.
Callers: entrypoints; Tokenizer.apply_chat_template once `with_chat` has been called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm.chat import sandbox
from vllm.chat.messages import normalize, normalize_tools, plain
from vllm.errors import ChatTemplateError
from vllm.tokenizer.tokenizer import Tokenizer

_TAG = "\x02CONTINUE\x03 "  # why: its blank tells whether the template trims the ends of messages
_OURS = (
    "messages",
    "tools",
    "add_generation_prompt",
    "documents",
    "chat_template",
    "tokenize",
    "continue_final_message",
)


def render(
    tokenizer: Tokenizer,
    messages: Any,
    tools: Any = None,
    chat_template: str | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    documents: Any = None,
    content_format: str = "auto",
    **variables: Any,
) -> str:
    """The prompt text of one conversation; `variables` are what the template knows besides, such as enable_thinking.

    `chat_template` is a template, the name of one of the tokenizer's, or a file. Raises ChatTemplateError.
    """
    for name in variables:
        if name in _OURS or name.startswith("_"):
            raise ChatTemplateError(f"chat_template_kwargs may not set {name!r}.", field="chat_template_kwargs")
    if continue_final_message and add_generation_prompt:
        raise ChatTemplateError(
            "continue_final_message and add_generation_prompt exclude each other.",
            field="continue_final_message",
            remedy="Set add_generation_prompt=False to continue the last message.",
        )
    source = template_text(tokenizer, chat_template, tools)
    chat = normalize(messages, source, content_format)
    last = _tag_last(chat) if continue_final_message else ""
    text = sandbox.render(
        source,
        {
            **tokenizer.special_tokens_map,
            **plain(variables),
            "messages": chat,
            "tools": normalize_tools(tools),
            "documents": plain(documents),
            "add_generation_prompt": add_generation_prompt,
        },
    )
    return _cut_at_tag(text, last) if continue_final_message else text


def thinks_by_default(tokenizer: Tokenizer, messages: Any, text: str, **options: Any) -> bool:
    """Whether `text`, rendered with these options, is what the template writes when it is asked for thoughts.

    A template that knows no such switch says the same either way: then its model thinks if it thinks at all.
    """
    if options.get("enable_thinking") is False or options.get("thinking") is False:
        return False
    switches = {name: True for name in ("enable_thinking", "thinking") if name not in options}
    return render(tokenizer, messages, **{**options, **switches}) == text


def shown_template(tokenizer: Tokenizer | None, given: str | None) -> str:
    """The text of the template that tools are shown through; "" where there is none."""
    try:
        return "" if tokenizer is None else template_text(tokenizer, given, tools=[{}])
    except (ChatTemplateError, OSError):
        return ""


def template_text(tokenizer: Tokenizer, chat_template: str | None = None, tools: Any = None) -> str:
    """The template that would be used. Raises ChatTemplateError (no template) or ValidationError."""
    if chat_template is not None and "{" not in chat_template and "\n" not in chat_template:
        own = tokenizer.chat_template
        if not (isinstance(own, dict) and chat_template in own):
            path = Path(chat_template).expanduser()
            if not path.is_file():
                # why: the whole path, which the usual sentence would clip
                missing = f"chat_template must be a jinja template or a file with one, got {chat_template[:1000]!r}."
                raise ChatTemplateError(missing, field="chat_template", value=chat_template)
            return path.read_text(encoding="utf-8")
    try:
        return tokenizer.get_chat_template(chat_template, tools)
    except ChatTemplateError:
        raise
    except ValueError as error:
        raise ChatTemplateError(str(error), field="chat_template") from None


def _tag_last(chat: list[dict[str, Any]]) -> str:
    """Mark the end of the last message's text, and return that text."""
    content = chat[-1].get("content")
    if isinstance(content, str):
        chat[-1]["content"] = content + _TAG
        return content
    for part in reversed(content or []):
        text: str = part["text"]
        part["text"] = text + _TAG
        return text
    raise ChatTemplateError("continue_final_message: the last message has no text to continue.", field="messages")


def _cut_at_tag(text: str, last: str) -> str:
    """The text up to the mark, which is taken out; what the template puts after a message goes too."""
    at = text.rfind(_TAG.rstrip())
    if at < 0 or last.strip() not in text[:at]:
        raise ChatTemplateError(
            "continue_final_message: this chat template does not show the last message as it is.", field="messages"
        )
    return text[:at] if text.startswith(_TAG, at) else text[:at].rstrip()


def apply_chat_template(
    tokenizer: Tokenizer,
    conversation: Any,
    tools: Any = None,
    documents: Any = None,
    chat_template: str | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    tokenize: bool = True,
    padding: bool | str = False,
    truncation: bool = False,
    max_length: int | None = None,
    return_tensors: str | None = None,
    return_dict: bool = True,
    **variables: Any,
) -> Any:
    """What transformers' method of this name does: text, ids, or ids with their mask, for one conversation or many."""
    many = isinstance(conversation, Sequence) and bool(conversation) and isinstance(conversation[0], (list, tuple))
    texts = [
        render(
            tokenizer,
            one,
            tools=tools,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            documents=documents,
            **variables,
        )
        for one in (conversation if many else [conversation])
    ]
    if not tokenize:
        return texts if many else texts[0]
    made = tokenizer(
        texts if many else texts[0],
        add_special_tokens=False,
        padding=padding,
        truncation=truncation,
        max_length=max_length,
        return_tensors=return_tensors,
    )
    return made if return_dict else made["input_ids"]


def with_chat(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, able to `apply_chat_template`."""
    tokenizer.chat_renderer = apply_chat_template
    return tokenizer
