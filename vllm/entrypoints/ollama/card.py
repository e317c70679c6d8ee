"""What Ollama's routes tell of the served model. Called by: routes."""

import hashlib
import json
from typing import Any

from vllm.entrypoints.ollama.lines import moment
from vllm.entrypoints.openai.state import Server


def card(server: Server, name: str) -> dict[str, Any]:
    """The model as Ollama lists it."""
    weights = [file.stat().st_size for file in server.front.model.folder.glob("*.safetensors")]
    return {
        "name": name,
        "model": name,
        "size": sum(weights),
        "digest": hashlib.sha256(server.fingerprint.encode()).hexdigest(),
        "details": details(server),
    }


def config(server: Server) -> dict[str, Any]:
    """The model's config.json; {} where there is none that can be read."""
    try:
        found = json.loads((server.front.model.folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def details(server: Server) -> dict[str, Any]:
    """Family, form and size."""
    found = config(server)
    family = str(found.get("model_type", ""))
    quantization = found.get("quantization_config") or {}
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": "",
        "quantization_level": str(quantization.get("quant_method") or found.get("dtype") or found.get("torch_dtype")),
    }


def capabilities(server: Server) -> list[str]:
    """What a client may ask of the model."""
    found = ["completion"]
    if server.has_chat_template:
        found += ["tools"] if server.format.tools is not None else []
        found += ["thinking"] if server.format.reasoning is not None else []
    return found


def since(server: Server) -> str:
    """The moment since which the model is served."""
    return moment(server.created)
