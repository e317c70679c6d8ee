"""Errors as Ollama's clients expect them. Called by: openai/app, the routes here."""

import msgspec

from vllm.entrypoints.openai.errors import HttpError


def ollama_error(error: HttpError) -> bytes:
    """In Ollama's shape."""
    return msgspec.json.encode({"error": error.message})
