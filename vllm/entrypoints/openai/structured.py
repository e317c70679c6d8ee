"""The constraint that a request's fields ask for. Does not know: routes, grammars. Called by: routes, other APIs."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vllm.entrypoints.openai.schemas import Generation, ResponseFormat
from vllm.errors import ValidationError, nearest
from vllm.sampling_params import StructuredOutputsParams

_GUIDED = ("json", "regex", "choice", "grammar")


def constraint(body: Generation) -> StructuredOutputsParams | None:
    """From response_format, structured_outputs, or vLLM's older guided_* fields. Raises ValidationError."""
    asked = {
        "response_format": None if body.response_format is None else of_format(body.response_format),
        "structured_outputs": None if not body.structured_outputs else of_fields(body.structured_outputs),
        "guided_*": _of_guided(body),
    }
    given = [name for name, params in asked.items() if params is not None]
    if len(given) > 1:
        raise ValidationError(f"{' and '.join(given)} exclude each other.", field=given[1])
    return asked[given[0]] if given else None


def of_format(given: ResponseFormat) -> StructuredOutputsParams | None:
    """OpenAI's response_format."""
    kind = given.type
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind == "json_schema":
        schema = given.json_schema.get("schema") if given.json_schema is not None else None
        if not isinstance(schema, Mapping):
            raise ValidationError.of("response_format.json_schema.schema", schema, "a JSON schema")
        return StructuredOutputsParams(json=dict(schema))
    if kind == "structural_tag":
        import json

        return StructuredOutputsParams(structural_tag=json.dumps(given.model_dump()))
    raise ValidationError.of("response_format.type", kind, "text, json_object, json_schema or structural_tag")


def of_fields(given: Mapping[str, Any]) -> StructuredOutputsParams:
    """vLLM's structured_outputs."""
    known = {f.name for f in fields(StructuredOutputsParams)}
    for name in given:
        if name not in known:
            raise ValidationError(f"structured_outputs has no field {name!r}.{nearest(name, known)}", field=name)
    made = {name: value for name, value in given.items() if value is not None}
    tag = made.get("structural_tag")
    if isinstance(tag, Mapping):
        import json

        made["structural_tag"] = json.dumps(tag)
    return StructuredOutputsParams(**made)


def _of_guided(body: Generation) -> StructuredOutputsParams | None:
    extra = body.model_extra or {}
    given = {kind: extra[f"guided_{kind}"] for kind in _GUIDED if extra.get(f"guided_{kind}") is not None}
    if not given:
        return None
    pattern = extra.get("guided_whitespace_pattern")
    return of_fields({**given, **({"whitespace_pattern": pattern} if pattern else {})})
