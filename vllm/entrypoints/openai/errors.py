"""Errors as OpenAI's clients expect them: {"error": {message, type, param, code}} with the right status.

Invariant: a client learns what is wrong with its request and nothing of our insides. Called by: app, routes, stream.
"""

from collections.abc import Callable

import msgspec
from pydantic import ValidationError as SchemaError

from vllm.errors import EngineDeadError, EngineGenerateError, RefusedError, ValidationError, VllmError, quoted

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowed",
    413: "RequestTooLargeError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
RETRY_S = "2"
"""What Retry-After says: about the time of a restart."""


class HttpError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.headers = {**({"retry-after": RETRY_S} if status == 503 else {}), **(headers or {})}


Shape = Callable[[HttpError], bytes]
"""How an API tells an error: the JSON of it."""


def openai_error(error: HttpError) -> bytes:
    """In OpenAI's shape."""
    kind = _TYPES.get(error.status, "InternalServerError")
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.status}}
    )


def as_http(error: Exception) -> HttpError:
    """Any exception of a request as the answer it gets."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, SchemaError):
        return _of_schema(error)
    if isinstance(error, ValidationError):
        return HttpError(400, str(error), error.field)
    if isinstance(error, EngineDeadError):
        return HttpError(503, "The engine has stopped.")
    if isinstance(error, EngineGenerateError):
        return HttpError(500, str(error))
    if isinstance(error, VllmError) and isinstance(error, ValueError):
        return HttpError(400, str(error))
    return HttpError(500, "The server failed on this request; its log says more.")


def refused(field: str, why: str) -> RefusedError:
    """A field that we know and cannot serve."""
    return RefusedError(f"{field} is not supported: {why}.", field=field)


def _of_schema(error: SchemaError) -> HttpError:
    """The first complaint of pydantic; of a text or a list only what it is, for it may be long, or secret.

    Of a field with several types it is that of the type which the value has, not that of another.
    """
    told = error.errors(include_url=False, include_context=False)
    same = [one for one in told if one["loc"][:1] == told[0]["loc"][:1]]
    deepest = max(same, key=lambda one: sum(not _is_union_arm(part) for part in one["loc"]))
    first = next((one for one in same if not one["type"].endswith("_type")), deepest)
    place = ".".join(str(part) for part in first["loc"] if not _is_union_arm(part))
    if first["type"] == "json_invalid":
        return HttpError(400, f"The body is not JSON: {first['msg']}.")
    got = "" if first["type"] == "missing" else f", got {_shown(first['input'])}"
    return HttpError(400, f"{place or 'the body'}: {first['msg']}{got}.", place or None)


def _shown(value: object) -> str:
    """A plain value, or the kind of another."""
    if value is None or isinstance(value, bool | int | float):
        return {"None": "null", "True": "true", "False": "false"}.get(repr(value), quoted(value))
    return {str: "a string", list: "an array", dict: "an object"}.get(type(value), "something else")


def _is_union_arm(part: int | str) -> bool:
    """Whether a part of a location names an alternative of a type and no field."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or "-" in part)
