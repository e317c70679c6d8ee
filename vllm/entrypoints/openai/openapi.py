"""The OpenAPI document, made from the routes and the schemas that check their bodies; and a page that shows it.

The page is plain HTML made here: no script, nothing from elsewhere, so it works offline and under the strictest policy.
Does not know: what a route does. Called by: routes/openapi, routes/docs.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vllm.version import __version__

_REF = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}


@dataclass(frozen=True, slots=True)
class Door:
    """What the document says of one path."""

    path: str
    methods: tuple[str, ...]
    family: str
    title: str
    text: str
    is_open: bool
    body: type[BaseModel] | None
    kinds: tuple[str, ...]
    """Media types of an answer."""


def document(doors: Sequence[Door], has_keys: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    bodies = [door.body for door in doors if door.body is not None]
    unique = list(dict.fromkeys(bodies))
    refs, defs = models_json_schema([(body, "validation") for body in unique], ref_template=_REF + "{model}")
    schemas = {**defs.get("$defs", {}), "Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for door in doors:
        path = door.path.replace(":path}", "}")
        for method in door.methods:
            body = None if door.body is None else refs[door.body, "validation"]
            paths.setdefault(path, {})[method.lower()] = _operation(door, method, path, body, has_keys)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vllm, an independent implementation",
            "version": __version__,
            "description": "Language models over HTTP, for the clients of OpenAI, Anthropic and Ollama.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(door: Door, method: str, path: str, body: Mapping[str, Any] | None, has_keys: bool) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    made: dict[str, Any] = {
        "operationId": f"{method.lower()}_{'_'.join(p.strip('{}') for p in path.split('/') if p) or 'root'}",
        "tags": [door.family],
        "summary": door.title,
        "description": door.text,
        "responses": {
            "200": {"description": "The answer.", "content": {kind: {} for kind in door.kinds}},
            "4XX": _failure("What is wrong with the request."),
            "5XX": _failure("The server cannot answer; with 503, come again after Retry-After seconds."),
        },
    }
    if names:
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if body is not None and method == "POST":
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if has_keys and not door.is_open:
        made["security"] = [{"bearer": []}, {"header": []}]
    return made


def _failure(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {}}}


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;color-scheme:light dark}"
    "code,pre{font-family:ui-monospace,monospace;font-size:.9em}summary{cursor:pointer;padding:.3rem 0}"
    "details{border-bottom:1px solid #8884}table{border-collapse:collapse;width:100%}"
    "td{border-top:1px solid #8883;padding:.2rem .5rem .2rem 0;vertical-align:top}b{display:inline-block;min-width:4em}"
)
CSP = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(made: Mapping[str, Any]) -> str:
    """The document as a page."""
    families: dict[str, list[str]] = {}
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            families.setdefault(operation["tags"][0], []).append(_entry(path, method, operation, made))
    groups = "".join(f"<h2>{escape(name)}</h2>{''.join(entries)}" for name, entries in sorted(families.items()))
    info = made["info"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])}</h1><p>Version {escape(info['version'])}. {escape(info['description'])} "
        f'For machines: <a href="openapi.json">openapi.json</a>.</p>{groups}</body></html>'
    )


def _entry(path: str, method: str, operation: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    table = "" if body is None else _table(body, made["components"]["schemas"])
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    return f"<details><summary>{head}</summary><p>{escape(operation['description'])}</p>{table}</details>"


def _table(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """The fields of a body."""
    found = schemas[schema["$ref"].removeprefix(_REF)] if "$ref" in schema else schema
    needed = found.get("required", ())
    rows = [
        f"<tr><td><code>{escape(name)}</code>{' *' if name in needed else ''}</td>"
        f"<td>{escape(_kind(field))}</td><td>{escape(str(field.get('description', '')))}</td></tr>"
        for name, field in found.get("properties", {}).items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _kind(field: Mapping[str, Any]) -> str:
    """A field's type in a few words."""
    if "$ref" in field:
        return str(field["$ref"]).removeprefix(_REF)
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_kind(one) for one in field["anyOf"]))
    if "const" in field or "enum" in field:
        return " | ".join(map(repr, field.get("enum", [field.get("const")])))
    if field.get("type") == "array":
        return f"[{_kind(field.get('items', {}))}]"
    kind = str(field.get("type", "anything"))
    bounds = [f"{sign} {field[word]}" for word, sign in (("minimum", ">="), ("maximum", "<=")) if word in field]
    return " ".join([kind, *bounds])
