"""A request for a response as the ChatRequest that all APIs share.

    instructions, earlier turns, input items ─▶ messages        tools, text.format, reasoning ─▶ the chat's fields

Does not know: templates, the engine. Invariant: what cannot be served is refused by name, never dropped. Called by:
routes.
"""

from typing import Any

from vllm.entrypoints.openai.errors import HttpError, refused
from vllm.entrypoints.openai.responses.schemas import LOGPROBS, SAME, InputRequest, ResponsesRequest
from vllm.entrypoints.openai.schemas import ChatRequest

Messages = list[dict[str, Any]]
_TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


def as_chat(body: InputRequest, earlier: Messages) -> tuple[ChatRequest, Messages, list[str]]:
    """(the request, its conversation without the instructions, names of fields that have no effect)."""
    ignored = body.unknown_fields()
    conversation = [*earlier, *_messages(body.input)]
    if not conversation:
        raise HttpError(400, "input must not be empty.", "input")
    first = [{"role": "system", "content": body.instructions}] if body.instructions else []
    fields: dict[str, Any] = {"model": body.model, "messages": [*first, *conversation]}
    if body.tools:
        fields["tools"] = [_tool(i, tool) for i, tool in enumerate(body.tools)]
    fields |= {
        "tool_choice": body.tool_choice,
        "parallel_tool_calls": body.parallel_tool_calls,
        "chat_template_kwargs": body.chat_template_kwargs,
    }
    if body.reasoning is not None:
        fields["reasoning_effort"] = body.reasoning.effort
        if body.reasoning.summary is not None:
            ignored.append("reasoning.summary")  # why: thoughts are given whole
    if body.truncation == "auto":
        ignored.append("truncation")
    fields |= _form(body)
    if isinstance(body, ResponsesRequest):
        fields |= _sampling(body, ignored)
    return ChatRequest.model_validate(fields), conversation, ignored


def _sampling(body: ResponsesRequest, ignored: list[str]) -> dict[str, Any]:
    fields = {name: getattr(body, name) for name in SAME}
    # why: whole responses are put together from the same steps as streamed ones
    fields |= {"max_completion_tokens": body.max_output_tokens, "stream": True}
    ignored += [f"include.{name}" for name in body.include or () if name != LOGPROBS]
    if LOGPROBS in (body.include or ()) or body.top_logprobs:
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    return fields


def _form(body: InputRequest) -> dict[str, Any]:
    if body.text is None:
        return {}
    if body.text.verbosity not in (None, "medium"):
        raise refused("text.verbosity", "no served model takes it")
    form = body.text.format
    if form is None or form.get("type") == "text":
        return {}
    if form.get("type") == "json_schema":
        schema = {name: form[name] for name in ("name", "schema", "strict", "description") if name in form}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": form}


def _messages(given: str | Messages) -> Messages:
    """Input items as messages; calls and thoughts join the message that they belong to."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    out: Messages = []
    thoughts = ""
    for index, item in enumerate(given):
        where, kind = f"input.{index}", item.get("type", "message")
        if kind == "reasoning":
            thoughts += _text(where, item.get("content") or item.get("summary") or [])
        elif kind == "function_call":
            call = {"name": _word(where, item, "name"), "arguments": _word(where, item, "arguments")}
            if not out or out[-1]["role"] != "assistant" or thoughts:
                out.append(_assistant(thoughts))
                thoughts = ""
            made = {"id": _word(where, item, "call_id"), "type": "function", "function": call}
            out[-1].setdefault("tool_calls", []).append(made)
        elif kind == "function_call_output":
            text = _text(f"{where}.output", item.get("output"))
            out.append({"role": "tool", "tool_call_id": _word(where, item, "call_id"), "content": text})
        elif kind == "message":
            message = {"role": _word(where, item, "role"), "content": _text(f"{where}.content", item.get("content"))}
            if message["role"] == "assistant":
                message |= {"reasoning_content": thoughts} if thoughts else {}
                thoughts = ""
            out.append(message)
        elif kind == "item_reference":
            raise refused(where, "items are not kept by themselves; send the item, or use previous_response_id")
        else:
            raise refused(f"{where}.type", f"an item of type {str(kind)[:64]!r} cannot be read")
    return out


def _assistant(thoughts: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    return {**message, "reasoning_content": thoughts} if thoughts else message


def _text(where: str, content: Any) -> str:
    """The text of a string or of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise HttpError(400, f"{where} must be a string or a list of parts.", where)
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXTS:
            texts.append(_word(f"{where}.{i}", part, "text"))
        elif kind == "refusal":
            texts.append(_word(f"{where}.{i}", part, "refusal"))
        else:
            raise refused(f"{where}.{i}", f"a part of type {str(kind)[:64]!r} cannot be read; only text is")
    return "\n".join(texts)


def _word(where: str, item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise HttpError(400, f"{where}.{name} must be a string.", f"{where}.{name}")
    return value


def _tool(index: int, tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise refused(f"tools.{index}.type", f"there is no built-in tool {str(tool.get('type'))[:64]!r}")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}
