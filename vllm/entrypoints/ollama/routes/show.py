"""What is known of a model: its template, its options, what it can do."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.ollama.card import capabilities, config, details, since
from vllm.entrypoints.ollama.schemas import ShowRequest
from vllm.entrypoints.ollama.translate import served_name
from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.state import Server, shown_template

NAMES = ("/api/show",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = ShowRequest
KINDS = ("application/json",)
_COUNTS = {
    # Ollama's name -> config.json's
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
}


async def answer(request: Request, server: Server) -> Response:
    """The model's card."""
    body = await read(request, ShowRequest)
    name = body.model or body.name
    if not name:
        raise HttpError(400, "model is required", "model")
    served_name(server, name)
    headers = server.unknown(list(body.model_extra or ()), ShowRequest)
    tokenizer = server.front.model.tokenizer
    sampling = server.front.model.default_sampling
    told: dict[str, Any] = {
        "modelfile": "",
        "parameters": "\n".join(f"{key} {value}" for key, value in sampling.items()),
        "template": "" if tokenizer is None else shown_template(tokenizer, server.engine_args.chat_template),
        "details": details(server),
        "model_info": _info(server),
        "capabilities": capabilities(server),
        "modified_at": since(server),
    }
    return JSONResponse(told, headers=headers)


def _info(server: Server) -> dict[str, Any]:
    found = config(server)
    family = str(found.get("model_type", ""))
    info: dict[str, Any] = {"general.architecture": family}
    info |= {f"{family}.{ours}": found[theirs] for ours, theirs in _COUNTS.items() if theirs in found}
    info[f"{family}.context_length"] = server.front.model.ready.max_model_len
    return info
