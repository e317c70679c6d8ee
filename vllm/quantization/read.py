"""From config.json to how a checkpoint is stored: asks the file that owns its quant_method.

Does not know the formats. Called by: planning.describe.
"""

from typing import Any

from vllm.errors import RefusedError, quoted
from vllm.parts.hf import HFConfig
from vllm.protocol.plan import Stored
from vllm.util.catalog import Catalogue

METHODS = Catalogue("vllm.quantization", "quantization method")


def read_stored(config: HFConfig) -> Stored | None:
    """How the checkpoint of this config.json is quantized; None where it is not. RefusedError for formats not read."""
    said: Any = config.get("quantization_config") or config.get("compression_config")
    if not said:
        return None
    name = said.get("quant_method", "unknown") if isinstance(said, dict) else said
    module = METHODS.load(name) if isinstance(name, str) and name in METHODS else None
    if module is None or not isinstance(said, dict) or "read" not in vars(module):
        formats = [n for n in METHODS.names() if "read" in vars(METHODS.load(n))]
        raise RefusedError(
            f"this checkpoint is quantized ({quoted(name)}), which is not supported yet; take the unquantized one, or "
            f"one in a format that is: {', '.join(formats)}.",
            field="model",
        )
    stored: Stored = module.read(said)
    return stored


def refuse(format_name: str, what: str) -> RefusedError:
    """The sentence for a variant of a format that is not read."""
    return RefusedError(
        f"this checkpoint is quantized ({quoted(format_name)}) with {what}, which is not supported yet; take one with "
        f"8-bit floating-point (e4m3) weights and inputs, or the unquantized one.",
        field="model",
    )
