"""Checkpoints of llm-compressor: `quant_method: compressed-tensors`, in its format float-quantized.

Weights in e4m3 with a scale per tensor, per channel or per block; inputs with a scale per tensor from the checkpoint,
or per token, or per block of columns. Integer and 4-bit formats are refused by name.
"""

from typing import Any

from vllm.protocol.plan import Stored
from vllm.quantization.read import refuse

NAMES = ("compressed-tensors",)
_NAME = "compressed-tensors"


def read(said: dict[str, Any]) -> Stored:
    """quantization_config of such a checkpoint."""
    groups = list((said.get("config_groups") or {}).values())
    if len(groups) != 1 or groups[0].get("targets") != ["Linear"]:
        raise refuse(_NAME, f"{len(groups)} config_groups, of which the only one should target Linear")
    weights, inputs = groups[0].get("weights") or {}, groups[0].get("input_activations")
    if said.get("format", "float-quantized") not in ("float-quantized", "naive-quantized"):
        raise refuse(_NAME, f"format {said.get('format')!r}")
    if not _is_fp8(weights):
        raise refuse(_NAME, f"weights of {weights.get('num_bits')} bits, type {weights.get('type')!r}")
    if inputs is None:
        raise refuse(_NAME, "weights alone")
    if not _is_fp8(inputs):
        raise refuse(_NAME, f"inputs of {inputs.get('num_bits')} bits, type {inputs.get('type')!r}")
    if said.get("sparsity_config") and (said["sparsity_config"].get("format") or "dense") != "dense":
        raise refuse(_NAME, f"sparsity format {said['sparsity_config'].get('format')!r}")
    how, of_inputs, is_dynamic = weights.get("strategy"), inputs.get("strategy"), bool(inputs.get("dynamic"))
    ignore = tuple(said.get("ignore") or ())
    if how in ("tensor", "channel") and (of_inputs, is_dynamic) in (("tensor", False), ("token", True)):
        return Stored(_NAME, "fp8", static=not is_dynamic, ignore=ignore)
    block: list[int] = weights.get("block_structure") or []
    if how == "block" and len(block) == 2 and of_inputs == "group" and inputs.get("group_size") == block[1]:
        return Stored(_NAME, "fp8_block", (block[0], block[1]), ignore=ignore)
    moving = "dynamic" if is_dynamic else "static"
    raise refuse(_NAME, f"a scale per {how} of the weights and {moving} scales per {of_inputs} of the inputs")


def _is_fp8(scheme: dict[str, Any]) -> bool:
    return scheme.get("num_bits") == 8 and scheme.get("type") == "float" and scheme.get("symmetric") is not False
