"""fp8 (W8A8): e4m3 weights with a scale per row, e4m3 inputs with a scale per token or one from the checkpoint.

Asked for by the user, each weight is quantized as it is loaded, with one scale per row. A checkpoint says so itself:
`quant_method: fp8` holds one scale per weight (then every row has it) or, with `weight_block_size`, one per block.
Embedding, head, router and stacked experts keep their dtype (experts of such a checkpoint are turned back at load).
"""

from typing import Any

from vllm.protocol.plan import Stored
from vllm.quantization.read import refuse

NAMES = ("fp8",)
OP = "linear_fp8"
AT_LOAD = True
"""Weights come from the loader in fp8 with their scales."""


def read(said: dict[str, Any]) -> Stored:
    """quantization_config of `quant_method: fp8`."""
    kind, scheme = said.get("fmt", "e4m3"), said.get("activation_scheme", "dynamic")
    if kind not in ("e4m3", "float8_e4m3fn"):
        raise refuse("fp8", f"weights of type {kind!r}")
    if scheme not in ("dynamic", "static"):
        raise refuse("fp8", f"activation_scheme {scheme!r}")
    ignore = tuple(said.get("ignored_layers") or ()) + tuple(said.get("modules_to_not_convert") or ())
    block = said.get("weight_block_size")
    if not block:
        return Stored("fp8", "fp8", static=scheme == "static", ignore=ignore)
    good = isinstance(block, list) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)
    if not good or scheme == "static":
        what = "weight_block_size and static activations" if good else f"weight_block_size {block!r}"
        raise refuse("fp8", what)
    return Stored("fp8", "fp8_block", (block[0], block[1]), ignore=ignore)
