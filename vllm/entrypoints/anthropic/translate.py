"""A request of Anthropic's as the ChatRequest that all APIs share.

    system, messages of blocks ─▶ OpenAI's messages     tools, tool_choice, thinking, output_config ─▶ OpenAI's fields

Does not know: templates, the engine. Invariant: what cannot be served is refused by name, never dropped. Called by:
routes.
"""

import json
from collections.abc import Iterable
from typing import Any

from vllm.entrypoints.anthropic.schemas import Content, CountRequest, Message, MessagesRequest, Tool
from vllm.entrypoints.openai.errors import HttpError, refused
from vllm.entrypoints.openai.schemas import ChatRequest


def as_chat(body: CountRequest) -> tuple[ChatRequest, list[str]]:
    """(the request, names of fields that have no effect). Raises ValueError or HttpError naming a bad field."""
    ignored = body.unknown_fields()
    fields: dict[str, Any] = {"model": body.model, "messages": _messages(body)}
    if body.tools:
        fields["tools"] = [_tool(i, tool) for i, tool in enumerate(body.tools)]
    if body.tool_choice is not None:
        fields |= _tool_choice(body)
    fields |= _thinking(body, ignored)
    form = body.output_config.format if body.output_config is not None else None
    form = form if form is not None else body.output_format
    if form is not None:
        if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
            raise HttpError(400, "output_config.format must be {'type': 'json_schema', 'schema': {...}}.")
        schema = {"name": "output", "schema": form["schema"], "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(body, MessagesRequest):
        fields |= {
            "max_completion_tokens": body.max_tokens,
            "stop": body.stop_sequences,
            "stream": bool(body.stream),
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "user": body.metadata.user_id if body.metadata is not None else None,
        }
    last = body.messages[-1]
    if last.role == "assistant":  # why: Anthropic's clients put words into the model's mouth so
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    return ChatRequest.model_validate(fields), ignored


def _messages(body: CountRequest) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    if body.system:
        out.append({"role": "system", "content": _text("system", body.system)})
    for index, message in enumerate(body.messages):
        out += _message(f"messages.{index}", message)
    return out


def _message(where: str, message: Message) -> Iterable[dict[str, Any]]:
    if isinstance(message.content, str) or message.role == "system":
        return [{"role": message.role, "content": _text(f"{where}.content", message.content)}]
    return _assistant(where, message.content) if message.role == "assistant" else _user(where, message.content)


def _user(where: str, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What tools gave comes as messages of its own, before what the user says."""
    out: list[dict[str, Any]] = []
    texts: list[str] = []
    for i, block in enumerate(blocks):
        here = f"{where}.content.{i}"
        if block.get("type") == "tool_result":
            content = block.get("content")
            text = _text(f"{here}.content", content if content is not None else "")
            out.append({"role": "tool", "tool_call_id": _word(here, block, "tool_use_id"), "content": text})
        else:
            texts.append(_block_text(here, block))
    if texts or not out:
        out.append({"role": "user", "content": "\n".join(texts)})
    return out


def _assistant(where: str, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"role": "assistant"}
    texts, thoughts, calls = [], [], []
    for i, block in enumerate(blocks):
        here, kind = f"{where}.content.{i}", block.get("type")
        if kind == "thinking":
            thoughts.append(_word(here, block, "thinking"))
        elif kind == "redacted_thinking":
            continue  # why: only Anthropic could read it
        elif kind == "tool_use":
            given = block.get("input", {})
            if not isinstance(given, dict):
                raise HttpError(400, f"{here}.input must be an object.", f"{here}.input")
            function = {"name": _word(here, block, "name"), "arguments": json.dumps(given, ensure_ascii=False)}
            calls.append({"id": _word(here, block, "id"), "type": "function", "function": function})
        else:
            texts.append(_block_text(here, block))
    message["content"] = "".join(texts)
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _text(where: str, content: Content | Any) -> str:
    """The text of a string or of blocks of text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise HttpError(400, f"{where} must be a string or a list of blocks.", where)
    return "\n".join(_block_text(f"{where}.{i}", block) for i, block in enumerate(content))


def _block_text(where: str, block: Any) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text":
        return _word(where, block, "text")
    if kind in ("image", "document", "file", "container_upload"):
        raise refused(where, f"a block of type {kind!r} cannot be read; only text is")
    raise HttpError(400, f"{where}: a block of type {str(kind)[:64]!r} is not known here.", where)


def _word(where: str, block: dict[str, Any], name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise HttpError(400, f"{where}.{name} must be a string.", f"{where}.{name}")
    return value


def _tool(index: int, tool: Tool) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise refused(f"tools.{index}.type", f"{tool.type!r} would run here, and there are no built-in tools")
    if tool.input_schema is None:
        raise HttpError(400, f"tools.{index}.input_schema is needed.", f"tools.{index}.input_schema")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if (tool.model_extra or {}).get("strict") is True:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(body: CountRequest) -> dict[str, Any]:
    asked = body.tool_choice
    assert asked is not None
    out: dict[str, Any] = {"tool_choice": {"any": "required"}.get(asked.type, asked.type)}
    if asked.type == "tool":
        if asked.name is None:
            raise HttpError(400, "tool_choice.name is needed.", "tool_choice.name")
        out["tool_choice"] = {"type": "function", "function": {"name": asked.name}}
    if asked.disable_parallel_tool_use:
        out["parallel_tool_calls"] = False
    return out


def _thinking(body: CountRequest, ignored: list[str]) -> dict[str, Any]:
    """Thinking as a switch of the template. A budget is a wish that nothing here can hold a model to: it is named."""
    out: dict[str, Any] = {}
    effort = body.output_config.effort if body.output_config is not None else None
    if effort is not None:
        out["reasoning_effort"] = effort
    if body.thinking is not None:
        if body.thinking.budget_tokens is not None:
            ignored.append("thinking.budget_tokens")
        if body.thinking.type != "adaptive":
            out["chat_template_kwargs"] = {"enable_thinking": body.thinking.type == "enabled"}
    return out
