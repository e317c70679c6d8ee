"""A request of Ollama's as the ChatRequest (or, for raw text, the CompletionRequest) that all APIs share.

Does not know: templates, the engine. Invariant: what would change an answer and cannot be served is refused by name;
what only sets up a model is named as ignored. Called by: routes.
"""

from typing import Any

from vllm.entrypoints.ollama.schemas import Asked, ChatRequest, GenerateRequest
from vllm.entrypoints.openai import schemas as openai
from vllm.entrypoints.openai.errors import HttpError, refused
from vllm.entrypoints.openai.state import Server

_SAME = ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")
_REFUSED: dict[str, tuple[Any, ...]] = {
    # option -> the values that ask for nothing
    "mirostat": (0, 0.0),
    "typical_p": (1, 1.0),
    "tfs_z": (1, 1.0),
    "penalize_newline": (True,),
}
_NEEDLESS = frozenset({"mirostat_eta", "mirostat_tau"})
"""They mean something with mirostat only."""


def served_name(server: Server, name: str) -> str:
    """The name that is served; Ollama's clients add ":latest". HttpError 404 in Ollama's words."""
    found = name if name in server.names else name.removesuffix(":latest")
    if found not in server.names:
        raise HttpError(404, f"model {name!r} not found; served: {', '.join(map(repr, server.names))}", "model")
    return found


def as_chat(server: Server, body: ChatRequest) -> tuple[openai.ChatRequest, list[str]]:
    """(the request, names of fields that have no effect)."""
    fields, ignored = _common(server, body)
    fields["messages"] = [_message(i, message) for i, message in enumerate(body.messages)]
    if body.tools:
        fields["tools"] = [_tool(i, tool) for i, tool in enumerate(body.tools)]
    return openai.ChatRequest.model_validate(fields), ignored


def as_turn(server: Server, body: GenerateRequest) -> tuple[openai.ChatRequest, list[str]]:
    """A prompt as a conversation of one message."""
    fields, ignored = _common(server, body)
    system = [{"role": "system", "content": body.system}] if body.system else []
    fields["messages"] = [*system, {"role": "user", "content": body.prompt}]
    return openai.ChatRequest.model_validate(fields), ignored


def as_text(server: Server, body: GenerateRequest) -> tuple[openai.CompletionRequest, list[str]]:
    """A prompt as it is."""
    fields, ignored = _common(server, body)
    if body.system:
        raise refused("system", "a raw prompt has no place for it")
    if body.think:
        raise refused("think", "a raw prompt says itself whether the model thinks")
    for name in ("reasoning_effort", "chat_template_kwargs"):
        fields.pop(name, None)
    if fields.pop("logprobs", None):
        fields["logprobs"] = fields.pop("top_logprobs", 0)
    fields |= {"prompt": body.prompt, "max_tokens": fields.pop("max_completion_tokens", None)}
    return openai.CompletionRequest.model_validate(fields), ignored


def _common(server: Server, body: Asked) -> tuple[dict[str, Any], list[str]]:
    ignored = body.unknown_fields()
    fields: dict[str, Any] = {"model": served_name(server, body.model), "stream": body.stream is not False}
    if body.options is not None:
        fields |= _options(server, body, ignored)
    if body.think is not None:
        fields |= _think(body.think)
    if body.format:
        fields["response_format"] = _format(body.format)
    if body.logprobs:
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    return fields, ignored


def _options(server: Server, body: Asked, ignored: list[str]) -> dict[str, Any]:
    options = body.options
    assert options is not None
    out = {name: value for name in _SAME if (value := getattr(options, name)) is not None}
    if options.repeat_penalty is not None:
        out["repetition_penalty"] = options.repeat_penalty
        if options.repeat_last_n not in (None, -1):
            ignored.append("options.repeat_last_n")  # why: the penalty looks at all of the text
    if options.num_predict is not None and options.num_predict >= 0:
        out["max_completion_tokens"] = options.num_predict
    if options.num_ctx is not None and options.num_ctx > server.front.model.ready.max_model_len:
        ignored.append("options.num_ctx")
    for name, value in (options.model_extra or {}).items():
        if name in _REFUSED:
            if value is not None and value not in _REFUSED[name]:
                raise refused(f"options.{name}", "it is not built")
        elif name not in _NEEDLESS:
            ignored.append(f"options.{name}")
    return out


def _think(think: bool | str) -> dict[str, Any]:
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think}}
    if think not in ("low", "medium", "high", "max"):
        raise HttpError(400, "think must be a boolean, 'low', 'medium', 'high' or 'max'.", "think")
    return {"reasoning_effort": think}


def _format(form: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(form, dict):
        return {"type": "json_schema", "json_schema": {"name": "format", "schema": form}}
    if form != "json":
        raise HttpError(400, "format must be 'json' or a JSON schema.", "format")
    return {"type": "json_object"}


def _message(index: int, given: dict[str, Any]) -> dict[str, Any]:
    where = f"messages.{index}"
    if given.get("images"):
        raise refused(f"{where}.images", "only text is read")
    if not isinstance(given.get("content", ""), str | None):
        raise HttpError(400, f"{where}.content must be a string.", f"{where}.content")
    message = {"role": given.get("role"), "content": given.get("content") or ""}
    if isinstance(given.get("thinking"), str):
        message["reasoning_content"] = given["thinking"]
    if isinstance(given.get("tool_name"), str):
        message["name"] = given["tool_name"]
    calls = given.get("tool_calls")
    if calls:
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise HttpError(400, f"{where}.tool_calls must be a list of objects.", f"{where}.tool_calls")
        message["tool_calls"] = [{"id": f"call_{index}_{i}", "type": "function", **c} for i, c in enumerate(calls)]
    return message


def _tool(index: int, given: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given.get("function"), dict):
        raise HttpError(400, f"tools.{index}.function must be an object.", f"tools.{index}.function")
    return {"type": "function", **given}
