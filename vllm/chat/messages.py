"""A user's messages in the form that templates were written for.

    content     text or parts, whichever the template reads; parts are joined by line breaks, text is one part
    tool_calls  arguments as JSON text become a dict (what templates print)
    developer   becomes system, for templates that know no developer
    None        is left out, reasoning goes by all its names

Everything comes out as plain dicts, lists, strings and numbers. Does not know: HTTP, tokenizers. Invariant: the
caller's objects are never changed. Callers: chat/template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import nodes

from vllm.chat.sandbox import parse
from vllm.errors import ChatTemplateError, RefusedError, quoted

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal", "thinking")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_MAX_DEPTH = 64


FORMATS = ("auto", "string", "openai")


def normalize(messages: Any, template: str, content_format: str = "auto") -> list[dict[str, Any]]:
    """Messages ready for `template`. Raises ChatTemplateError naming the index of a bad one.

    `content_format` says how the template wants content: string (text), openai (parts), or auto (look at it).
    """
    if content_format not in FORMATS:
        raise ChatTemplateError.of("chat_template_content_format", content_format, f"one of {', '.join(FORMATS)}")
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise ChatTemplateError.of("messages", messages, "a list of dicts with role and content")
    if not messages:
        raise ChatTemplateError("messages is empty; give at least one.", field="messages")
    form = content_form(template) if content_format == "auto" else content_format
    with_developer = "developer" in template
    return [_message(i, message, form, with_developer) for i, message in enumerate(messages)]


def _message(index: int, given: Any, form: str, with_developer: bool) -> dict[str, Any]:
    where = f"messages[{index}]"
    message = plain(given)
    if not isinstance(message, dict):
        raise ChatTemplateError.of(where, given, "a dict with role and content")
    message = {key: value for key, value in message.items() if value is not None}
    if not isinstance(message.get("role"), str):
        raise ChatTemplateError.of(f"{where}.role", message.get("role"), "a string, such as 'user'")
    if message["role"] == "developer" and not with_developer:
        message["role"] = "system"
    if "content" in message:
        message["content"] = _content(where, message["content"], form)
    elif message["role"] in ("system", "user"):
        raise ChatTemplateError(f"{where} has no content.", field=where)
    if message.get("tool_calls"):
        message["tool_calls"] = [_tool_call(f"{where}.tool_calls[{i}]", c) for i, c in enumerate(message["tool_calls"])]
    reasoning = next((message[name] for name in _REASONING if name in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message


def _content(where: str, content: Any, form: str) -> Any:
    """Content in one of three forms: `string`, `openai` (parts), `both` (as it came)."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if form == "openai" else content
    if not isinstance(content, list):
        raise ChatTemplateError.of(f"{where}.content", content, "a string or a list of parts")
    parts = [_part(f"{where}.content[{i}]", part) for i, part in enumerate(content)]
    return "\n".join(part["text"] for part in parts) if form == "string" else parts


def _part(where: str, part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if kind is None and isinstance(part, dict) and isinstance(part.get("text"), str):
        kind = "text"
    if kind not in _TEXT_PARTS:
        if isinstance(kind, str) and any(word in kind for word in ("image", "audio", "video", "file")):
            raise RefusedError(f"{where}: a part of type {kind!r} cannot be read; only text is.", field=where)
        raise ChatTemplateError.of(where, part, "a text part, {'type': 'text', 'text': ...}")
    assert isinstance(part, dict)
    text = part.get("text", part.get(kind))
    if not isinstance(text, str):
        raise ChatTemplateError.of(f"{where}.text", text, "a string")
    return {**part, "type": "text", "text": text}


def _tool_call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatTemplateError.of(where, call, "a dict with function.name and function.arguments")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments) if arguments.strip() else {}
        except ValueError:
            read = arguments  # why: a model wrote it, and one bad call must not end the conversation
        function["arguments"] = read if isinstance(read, dict) else arguments
    return call  # type: ignore[no-any-return]


def normalize_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools as dicts; an empty list is no tools. Raises ChatTemplateError."""
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise ChatTemplateError.of("tools", tools, "a list of JSON schemas")
    out = []
    for index, given in enumerate(tools):
        tool = plain(given)
        if not isinstance(tool, dict):
            raise ChatTemplateError.of(f"tools[{index}]", given, "a dict: {'type': 'function', 'function': {...}}")
        out.append(tool)
    return out or None


def plain(value: Any, depth: int = 0) -> Any:
    """A copy made of dicts, lists, strings, numbers, booleans and None only, so that a template can reach no method."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > _MAX_DEPTH:
        raise ChatTemplateError(f"messages are nested deeper than {_MAX_DEPTH} levels.", field="messages")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return plain(dump(exclude_none=True), depth + 1)
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        return plain(value.item(), depth + 1)
    raise ChatTemplateError(f"messages hold a {type(value).__name__}: {quoted(value)}; only plain data is read.")


@lru_cache(maxsize=64)
def content_form(template: str) -> str:
    """What a template can read: `string`, or parts if it loops over content; `both` if it also asks for strings."""
    tree = parse(template)
    names = {"content"}
    for assign in tree.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node, names):
            names.add(assign.target.name)
    if not any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For)):
        return "string"
    return "both" if any(test.name == "string" for test in tree.find_all(nodes.Test)) else "openai"


def _is_content(node: Any, names: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False
