"""From a model folder to a description: reads config.json, finds the architecture, asks its file.

Does not know weights or devices. Invariant: runs no code of the folder. Called by: assembly, `vllm plan`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from vllm.errors import ModelLoadError, ModelNotFoundError, UnknownArchitectureError, nearest, quoted
from vllm.parts.checkpoint import Weights
from vllm.parts.decoder import Decoder
from vllm.parts.foreign import Foreign
from vllm.parts.hf import HFConfig
from vllm.protocol.plan import Stored
from vllm.quantization.read import read_stored
from vllm.util.catalog import Catalogue

MODELS = Catalogue("vllm.models", "architecture")


@dataclass(frozen=True, slots=True)
class Described:
    """A network and how its checkpoint is named. `architecture` is the name in config.json that was followed."""

    architecture: str
    config: HFConfig
    decoder: Decoder | Foreign
    weights: Weights
    stored: Stored | None = None
    """How the checkpoint is quantized; None where it is not."""


def read_config(folder: Path) -> HFConfig:
    """config.json of a model folder. Raises ModelNotFoundError, ModelLoadError."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{folder} has no config.json, so it is not a model folder") from None
    except (ValueError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelLoadError(f"{path} holds a {type(data).__name__}, not an object")
    return HFConfig(data)


def describe(config: HFConfig) -> Described:
    """The description of the network that `config` names. Raises UnknownArchitectureError with the nearest known."""
    said = config.get("architectures") or []
    if not isinstance(said, list) or not said:
        raise ModelLoadError(
            "config.json has no 'architectures', so it does not say which network the weights belong to"
        )
    for name in said:
        if name in MODELS:
            module = MODELS.load(name)
            return Described(name, config, module.describe(config), module.WEIGHTS, read_stored(config))
    code = " Its auto_map asks for code from the model's folder, which is never run." if config.get("auto_map") else ""
    raise UnknownArchitectureError(
        f"architecture {quoted(said[0])} is not described here.{nearest(said[0], MODELS.names())}{code}"
    )
