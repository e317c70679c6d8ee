"""Text or messages as token ids."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.conversation import conversation_ids
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.schemas import TokenizeRequest
from vllm.entrypoints.openai.state import Server

NAMES = ("/tokenize",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = TokenizeRequest
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """Ids of a prompt or of a conversation."""
    body = await read(request, TokenizeRequest)
    server.check_model(body.model)
    headers = server.unknown(list(body.model_extra or ()), TokenizeRequest)
    if (body.prompt is None) == (body.messages is None):
        raise HttpError(400, "Give prompt or messages, one of them.", "prompt")
    if body.messages is not None:
        ids = (await conversation_ids(server, body))[1]
    else:
        special = body.add_special_tokens if body.add_special_tokens is not None else True
        server.front.model.intake.refuse_endless(body.prompt or "")
        # why: in a thread, for a long text takes seconds, and everybody's streams would stand still
        ids = await asyncio.to_thread(server.tokenizer.encode, body.prompt, add_special_tokens=special)
    out = {"count": len(ids), "max_model_len": server.front.model.ready.max_model_len, "tokens": ids}
    out["token_strs"] = server.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
    return JSONResponse(out, headers=headers)
