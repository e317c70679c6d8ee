"""Checkpoints in fp8 as published tools write them, made of a transformers model; and what they mean, without our code.

Each layout gives the tensors of a linear map and its quantization_config. `exact` turns the same model into one whose
linear maps compute what such a checkpoint says: restored weights times inputs that were rounded to e4m3 and restored.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.contract.models import save

FP8 = torch.float8_e4m3fn
BLOCK = 16
STATIC = 0.01


@dataclass(frozen=True)
class Layout:
    """One published format."""

    name: str
    config: dict[str, Any]
    per: str
    """What has a scale of its own in a weight: tensor, row or block."""
    weight_scale: str
    shape: Callable[[torch.Tensor], torch.Tensor] = lambda scale: scale
    """The scale as the file has it."""
    inputs: str = "token"
    """The same of inputs: token, tensor (a number in the file) or group."""
    block: int = BLOCK
    """Rows and columns of a block, columns of a group."""


def in_blocks(layout: Layout, block: int) -> Layout:
    """The layout with blocks and groups of another size, where it has them."""
    config = deepcopy(layout.config)
    if "weight_block_size" in config:
        config["weight_block_size"] = [block, block]
    group = config.get("config_groups", {}).get("group_0", {"weights": {}, "input_activations": {}})
    if "block_structure" in group["weights"]:
        group["weights"]["block_structure"] = [block, block]
        group["input_activations"]["group_size"] = block
    return replace(layout, config=config, block=block)


def _compressed(weights: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    common = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**common, "dynamic": False, "observer": "minmax", **weights},
        "input_activations": {**common, **inputs},
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*mlp.gate$"],
        "kv_cache_scheme": None,
    }


LAYOUTS = (
    Layout(
        "fp8-static",
        {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]},
        "tensor",
        "weight_scale",
        inputs="tensor",
    ),
    Layout(
        "fp8-dynamic",
        {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]},
        "tensor",
        "weight_scale",
        lambda scale: scale.reshape(1),
    ),
    Layout(
        "fp8-block",
        {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"],
        },
        "block",
        "weight_scale_inv",
        inputs="group",
    ),
    Layout(
        "compressed-channel",
        _compressed({"strategy": "channel"}, {"strategy": "token", "dynamic": True}),
        "row",
        "weight_scale",
        lambda scale: scale.reshape(-1, 1).bfloat16(),
    ),
    Layout(
        "compressed-tensor",
        _compressed({"strategy": "tensor"}, {"strategy": "tensor", "dynamic": False}),
        "tensor",
        "weight_scale",
        lambda scale: scale.reshape(1).bfloat16(),
        inputs="tensor",
    ),
    Layout(
        "compressed-block",
        _compressed(
            {"strategy": "block", "block_structure": [BLOCK, BLOCK]},
            {"strategy": "group", "group_size": BLOCK, "dynamic": True},
        ),
        "block",
        "weight_scale",
        lambda scale: scale.bfloat16(),
        inputs="group",
    ),
)


def _blocks(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Largest magnitude of every block."""
    padded = nn.functional.pad(x.abs(), (0, -x.shape[1] % columns, 0, -x.shape[0] % rows))
    return padded.view(padded.shape[0] // rows, rows, -1, columns).amax((1, 3))


def _spread(scale: torch.Tensor, x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return scale.repeat_interleave(rows, 0)[: x.shape[0]].repeat_interleave(columns, 1)[:, : x.shape[1]]


def _size(x: torch.Tensor, per: str, block: int) -> tuple[int, int]:
    sizes = {"tensor": tuple(x.shape), "row": (1, x.shape[1]), "token": (1, x.shape[1]), "block": (block, block)}
    return sizes.get(per, (1, block))


def shrink(
    x: torch.Tensor, per: str, scale: torch.Tensor | None = None, block: int = BLOCK
) -> tuple[torch.Tensor, torch.Tensor]:
    """(e4m3 values, scales as they are in the file) of [N, E]."""
    size = _size(x, per, block)
    scale = (_blocks(x, *size) / 448).clamp(min=1e-12) if scale is None else scale
    return (x / _spread(scale, x, *size)).clamp(-448, 448).to(FP8), scale


def grow(values: torch.Tensor, scale: torch.Tensor, per: str, block: int = BLOCK) -> torch.Tensor:
    """What they stand for, float32."""
    return values.float() * _spread(scale.float(), values, *_size(values, per, block))


def is_quantized(name: str) -> bool:
    """The linear maps of blocks, experts among them; no gate and no head."""
    return ".layers." in name and not name.endswith("mlp.gate")


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The maps that a layout quantizes."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and is_quantized(n)}


def write(model: Any, layout: Layout, folder: Path) -> None:
    """The model's checkpoint in this layout. The model's own weights become the restored ones."""
    save(model, folder)
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    for name in [n for n in tensors if n.endswith(".weight") and is_quantized(n.removesuffix(".weight"))]:
        if tensors[name].dim() != 2:
            continue
        module = name.removesuffix(".weight")
        values, scale = shrink(tensors[name], layout.per, block=layout.block)
        kept = layout.shape(scale.reshape(()) if layout.per == "tensor" else scale)
        scale = kept.float().reshape(scale.shape)
        values, _ = shrink(tensors[name], layout.per, scale, layout.block)
        tensors[name], tensors[f"{module}.{layout.weight_scale}"] = values, kept.contiguous()
        if layout.inputs == "tensor":
            tensors[f"{module}.input_scale"] = layout.shape(torch.tensor(STATIC))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": layout.config}))


class Exact(nn.Module):
    """A linear map as the layout means it."""

    def __init__(self, inner: nn.Linear, layout: Layout) -> None:
        super().__init__()
        weight, block = inner.weight.detach(), layout.block
        scale = shrink(weight, layout.per, block=block)[1]
        kept = layout.shape(scale.reshape(()) if layout.per == "tensor" else scale).float().reshape(scale.shape)
        self.weight = grow(shrink(weight, layout.per, kept, block)[0], kept, layout.per, block)
        self.bias, self.layout = inner.bias, layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs are rounded and restored."""
        flat = x.reshape(-1, x.shape[-1]).float()
        static = self.layout.shape(torch.tensor(STATIC)).float().reshape(1, 1)
        inputs, block = self.layout.inputs, self.layout.block
        values, scale = shrink(flat, inputs, static if inputs == "tensor" else None, block)
        y = nn.functional.linear(grow(values, scale, inputs, block), self.weight, self.bias)
        return y.to(x.dtype).view(*x.shape[:-1], -1)


def exact(model: nn.Module, layout: Layout) -> nn.Module:
    """The model with every quantized map replaced."""
    for name, inner in linears(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Exact(inner, layout))
    return model
