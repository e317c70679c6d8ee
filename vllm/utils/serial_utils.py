"""Facade: keeps names of vLLM's vllm.utils.serial_utils alive."""

from vllm.util.facade import forward

_NAMES = (
    "EMBED_DTYPES",
    "ENDIANNESS",
    "binary2tensor",
    "tensor2base64",
)
__getattr__ = forward(__name__, dict.fromkeys(_NAMES, "vllm.entrypoints.odds"))
