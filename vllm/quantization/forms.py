"""What takes the place of a linear map's weight when it is kept in fp8: tensors, shapes, shares. No method by itself.

    layers.0.mixer.qkv.weight  [O, E] ─▶ .weight [O, E] fp8 + .weight_scale [O] or [O / rows, E / columns] float32
                                         + .input_scale [] float32, where the checkpoint has one

Knows neither torch nor checkpoints' names beyond the ignore list. Called by: planning (bytes), loading (tensors).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vllm.errors import ModelLoadError, ValidationError
from vllm.parts.checkpoint import Weights, sources
from vllm.parts.tensors import Piece, TensorSpec
from vllm.protocol.plan import Stored

LINEARS = (".qkv.weight", ".o.weight", ".gate_up.weight", ".up.weight", ".down.weight")
"""Ends of the names of the weights that methods replace: the linear maps of the blocks, no head, router or expert."""


@dataclass(frozen=True, slots=True)
class Form:
    """One weight in fp8: its own spec, that of its scales, whether its inputs have a scale of their own."""

    weight: TensorSpec
    scale: TensorSpec
    block: tuple[int, int] = (0, 0)
    static: bool = False

    @property
    def input_name(self) -> str:
        """Name of the scale of the inputs."""
        return self.weight.name.removesuffix("weight") + "input_scale"

    def bytes(self, tp_size: int, rank: int = 0) -> int:
        """Bytes of all of it on a rank."""
        numel = 1
        for size in self.weight.local_shape(tp_size, rank):
            numel *= size
        scales = 1
        for size in self.scale.local_shape(tp_size, rank):
            scales *= size
        return numel + 4 * scales + 4 * self.static


def forms(
    specs: Iterable[TensorSpec], weights: Weights | None, stored: Stored | None, tp_size: int = 1
) -> dict[str, Form]:
    """The weights that are kept in fp8, by name. Without `stored` they are quantized as they are loaded.

    Raises ValidationError where blocks cannot be cut, ModelLoadError where only a piece of a weight is quantized.
    """
    block = stored.block if stored else (0, 0)
    found = {}
    for spec in specs:
        if spec.name.endswith(LINEARS) and not (stored and weights and is_ignored(spec.name, weights, stored)):
            _check_blocks(spec, block, tp_size)
            found[spec.name] = Form(spec, _scale(spec, block), block, bool(stored and stored.static))
    return found


def _scale(spec: TensorSpec, block: tuple[int, int]) -> TensorSpec:
    name, rows = f"{spec.name}_scale", spec.shape[0]
    if block == (0, 0):
        cut = spec.shard_dim == 0
        return TensorSpec(name, (rows,), 0 if cut else None, spec.pieces if cut else ())
    size = block[spec.shard_dim or 0]
    pieces = tuple(Piece(-(-p.size // size), p.units) for p in spec.pieces)
    return TensorSpec(name, (-(-rows // block[0]), -(-spec.shape[1] // block[1])), spec.shard_dim, pieces)


def _check_blocks(spec: TensorSpec, block: tuple[int, int], tp_size: int) -> None:
    """Pieces that are stacked or shared out must be whole blocks."""
    if block == (0, 0) or (tp_size == 1 and len(spec.pieces) < 2):
        return
    size = block[spec.shard_dim or 0]
    for piece in spec.pieces:
        if piece.shard(tp_size, 0)[1] % size:
            share = f"its share of {tp_size} ranks is" if tp_size > 1 else "a piece of it is"
            raise ValidationError.of(
                "tensor_parallel_size",
                tp_size,
                f"such that every rank holds whole blocks of {block[0]} x {block[1]} of this checkpoint: {spec.name} "
                f"cannot be cut so ({share} {piece.shard(tp_size, 0)[1]} long)",
            )


def is_ignored(target: str, weights: Weights, stored: Stored) -> bool:
    """Whether the checkpoint leaves this weight as it is. ModelLoadError where it does so with a piece of it only."""
    for names in sources(weights, target):
        modules = [name.removesuffix(".weight") for name in names]
        left = [module for module in modules if any(_matches(entry, module) for entry in stored.ignore)]
        if left and len(left) < len(modules):
            rest = next(module for module in modules if module not in left)
            raise ModelLoadError(
                f"quantization_config in config.json leaves {left[0]!r} as it is and quantizes {rest!r}; these are one "
                f"weight here, so both must be quantized or none"
            )
        if left:
            return True
    return False


def _matches(entry: str, module: str) -> bool:
    if entry.startswith("re:"):
        return re.match(entry[3:], module) is not None
    return module == entry or module.endswith(f".{entry}") or module.startswith(f"{entry}.")
