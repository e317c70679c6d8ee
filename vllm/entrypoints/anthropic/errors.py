"""Errors as Anthropic's clients expect them. Called by: openai/app, the routes here."""

import msgspec

from vllm.entrypoints.openai.errors import HttpError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def anthropic_error(error: HttpError) -> bytes:
    """In Anthropic's shape."""
    kind = _TYPES.get(error.status, "api_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": error.message}})
