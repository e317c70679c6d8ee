"""Token ids as text."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vllm.entrypoints.openai.body import read
from vllm.entrypoints.openai.errors import HttpError
from vllm.entrypoints.openai.schemas import DetokenizeRequest
from vllm.entrypoints.openai.state import Server

NAMES = ("/detokenize",)
METHODS = ("POST",)
IS_OPEN = False
NEEDS_ENGINE = True
BODY = DetokenizeRequest
KINDS = ("application/json",)


async def answer(request: Request, server: Server) -> Response:
    """The text of ids."""
    body = await read(request, DetokenizeRequest)
    server.check_model(body.model)
    headers = server.unknown(list(body.model_extra or ()), DetokenizeRequest)
    vocab = server.front.model.ready.vocab_size
    for token in body.tokens:
        if not 0 <= token < vocab:
            raise HttpError(400, f"tokens must be ids in [0, {vocab - 1}], got {token}.", "tokens")
    return JSONResponse({"prompt": server.tokenizer.decode(body.tokens)}, headers=headers)
