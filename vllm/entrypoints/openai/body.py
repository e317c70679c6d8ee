"""A request's body: bounded, JSON, with numbers that any part of the server can hold. Called by: routes."""

import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

import msgspec
import pydantic_core
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from vllm.entrypoints.openai.errors import HttpError
from vllm.errors import ValidationError

MAX_BODY = 32 * 2**20
"""Most bytes of a request's body."""
_MOST_READ = 2 * MAX_BODY
"""Most bytes that are read, the rest of them for nothing: many clients read no answer before all is sent."""
_LONG_NUMBER = re.compile(rb"[0-9]{19}|NaN|Infinity|[eE][+-]?[0-9]{3}")
"""What a number that is too large looks like, and some texts too."""
_MOST_LOOKED_AT = 100_000
Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, schema: type[Body]) -> Body:
    """The body, checked against its schema. HttpError 413 when it is too large, pydantic's error when it is wrong."""
    body, length = bytearray(), 0
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 20 or int(said) > _MOST_READ):
        raise _too_large()
    try:
        async for piece in request.stream():
            length += len(piece)
            if length <= MAX_BODY:
                body += piece
            elif length > _MOST_READ:
                break
    except ClientDisconnect:
        raise HttpError(400, "The client left.") from None
    if length > MAX_BODY:
        raise _too_large()
    given = bytes(body)
    made = schema.model_validate_json(given)
    if _LONG_NUMBER.search(given):  # why: a look at every number would cost a long prompt of ids its time
        _check_numbers(given)
    return made


def _check_numbers(given: bytes) -> None:
    """Refuse what no message to the engine, and no JSON answer, can carry. ValidationError names the place."""
    data = pydantic_core.from_json(given)
    try:
        msgspec.msgpack.encode(data)
        if msgspec.json.decode(msgspec.json.encode(data)) == data:  # why: it writes null for what is not finite
            return
    except (OverflowError, ValueError):
        pass
    for place, value in islice(_leaves(data), _MOST_LOOKED_AT):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValidationError.of(place, value, "a finite number")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ValidationError.of(place, value, "a number of 64 bits", "Send a longer one as a string.")
    raise ValidationError("The body holds a number that is not finite or takes more than 64 bits.")


def _leaves(given: Any) -> Iterator[tuple[str, Any]]:
    """(place, value) of everything that holds nothing else."""
    todo = [("", given)]
    while todo:
        place, node = todo.pop()
        if isinstance(node, dict):
            todo += [(f"{place}.{name}".lstrip(".")[-128:], value) for name, value in node.items()]
        elif isinstance(node, list):
            todo += [(f"{place}.{i}"[-128:], value) for i, value in enumerate(node)]
        else:
            yield place, node


def _too_large() -> HttpError:
    """413, and the end of the connection: what is still coming will not be read."""
    return HttpError(413, f"The body is larger than {MAX_BODY} bytes.", headers={"connection": "close"})
