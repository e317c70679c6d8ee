"""Weights that are kept in fp8: filled from a checkpoint that holds them so, or quantized as they are loaded.

    stored     name.weight (e4m3) + name.weight_scale | weight_scale_inv [+ name.input_scale]   placed as they are
    at load    name.weight (bf16 ..)    each piece gets its scales when it is placed, so nothing is ever held twice

Scales per tensor become scales per row, so that pieces with scales of their own stack. Does not know which names are
whose (loader), nor what runs the weights (layers). Called by: loader.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable

import torch

from vllm.errors import ModelLoadError
from vllm.loading.readers.source import Source
from vllm.ops.linear_fp8 import quantize_weight, restore_weight
from vllm.protocol.plan import Stored, WorkerPlan
from vllm.quantization.forms import Form

FP8 = torch.float8_e4m3fn
_WEIGHT_SCALES = ("weight_scale", "weight_scale_inv")
_INPUT_SCALES = ("input_scale", "activation_scale")
_KINDS = (*_WEIGHT_SCALES, *_INPUT_SCALES)
_CACHE_SCALE = re.compile(
    r"layers\.(?P<layer>\d+)\.self_attn\.(?:attn\.)?(?:kv|(?P<what>[kv]))(?:_proj\.(?:[kv]|output))?_scale$"
)


def allocate(found: dict[str, Form], plan: WorkerPlan) -> dict[str, torch.Tensor]:
    """Tensors for weights and scales of this rank."""
    size, rank, device = plan.tp_size, plan.tp_rank, plan.device
    made = {}
    for name, form in found.items():
        made[name] = torch.empty(form.weight.local_shape(size, rank), dtype=FP8, device=device)
        made[form.scale.name] = torch.empty(form.scale.local_shape(size, rank), device=device)
        if form.static:
            made[form.input_name] = torch.zeros((), device=device)
    return made


class Scales:
    """Scale tensors of a checkpoint, by the module they belong to."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._of: dict[str, dict[str, Source]] = {}
        self.cache: dict[str, Source] = {}
        """Scales of keys and values in an 8-bit cache, under our names."""

    def cache_scales(self, known: Collection[str]) -> dict[str, torch.Tensor]:
        """Those of the layers of this rank, whose weights are `known`. ModelLoadError for more than one value."""
        found = {}
        for name, source in self.cache.items():
            if f"{name.rpartition('.')[0]}.qkv.weight" not in known:
                continue
            scale = source.read().float()
            if scale.numel() != 1 or not 0 < float(scale) < float("inf"):
                raise ModelLoadError(f"{source.where} should be one positive scale of a cache, not {scale.tolist()}")
            found[name] = scale.reshape(())
        return found

    def keep(self, sources: Iterable[Source]) -> list[Source]:
        """Take the scales out of `sources`; the rest comes back."""
        rest = []
        for source in sources:
            module, _, kind = source.name.rpartition(".")
            of_cache = _CACHE_SCALE.search(source.name)
            if of_cache is not None:
                which = (of_cache["what"],) if of_cache["what"] else ("k", "v")
                for what in which:
                    self.cache[f"layers.{of_cache['layer']}.mixer.{what}_scale"] = source
            elif kind in _KINDS:
                self._of.setdefault(module, {})[kind] = source
            else:
                rest.append(source)
        return rest

    def weight(self, source: Source) -> torch.Tensor:
        """The scales of a weight, float32. ModelLoadError where there are none."""
        return self._read(source, _WEIGHT_SCALES)

    def inputs(self, source: Source) -> torch.Tensor:
        """The scale of a weight's inputs. ModelLoadError where there is none."""
        scale = self._read(source, _INPUT_SCALES)
        if scale.numel() != 1:
            raise ModelLoadError(f"the input scale of {source.where} has {scale.numel()} values, and one is wanted")
        return scale.reshape(())

    def restored(self, source: Source, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that is used in full: turned back where it is e4m3, else as it is."""
        if tensor.dtype != FP8:
            return tensor
        scale = self.weight(source)
        block = self.stored.block if scale.dim() == 2 and self.stored.block != (0, 0) else (0, 0)
        return restore_weight(tensor, scale, block)

    def _read(self, source: Source, kinds: tuple[str, ...]) -> torch.Tensor:
        module = source.name.removesuffix(".weight")
        found = self._of.get(module, {})
        for kind in kinds:
            if kind in found:
                return found[kind].read().float()
        raise ModelLoadError(
            f"config.json says that the checkpoint is quantized ({self.stored.said}), and it lacks "
            f"{module}.{kinds[0]}, the scale of {source.where}"
        )


class Filler:
    """Fills the shards of weights in fp8, piece by piece; safe to call from several threads."""

    def __init__(self, shards: dict[str, torch.Tensor], scales: Scales | None, plan: WorkerPlan) -> None:
        """`scales` None: the checkpoint is not quantized, and weights are quantized here."""
        self._shards, self._scales = shards, scales
        self._size, self._rank = plan.tp_size, plan.tp_rank
        self._lock = threading.Lock()

    def place(self, form: Form, source: Source, tensor: torch.Tensor, piece: int | None) -> None:
        """Put `tensor` (one piece, or all of them) where it belongs."""
        scale = None
        if self._scales is not None:
            if tensor.dtype != FP8:
                kind = str(tensor.dtype).removeprefix("torch.")
                raise ModelLoadError(
                    f"config.json says that {source.where} is quantized ({self._scales.stored.said}), and it is "
                    f"{kind}, not float8_e4m3fn; quantization_config should list it among what is left as it is"
                )
            scale = self._scales.weight(source)
            if form.static:
                self._widen(form, self._scales.inputs(source))
        dim = form.weight.shard_dim or 0
        at = from_ = 0
        for p, (start, length) in enumerate(form.weight.ranges(self._size, self._rank)):
            if piece is None or piece == p:
                self._part(form, source, dim, at, length, tensor, from_ + start, scale)
                from_ += form.weight.pieces[p].size
            at += length

    def _part(
        self,
        form: Form,
        source: Source,
        dim: int,
        at: int,
        length: int,
        tensor: torch.Tensor,
        start: int,
        scale: torch.Tensor | None,
    ) -> None:
        """Rows or columns `start` .. of `tensor` become rows or columns `at` .. of the shard, with their scales."""
        dst = self._shards[form.weight.name].narrow(dim, at, length)
        scales = self._shards[form.scale.name]
        part = tensor.narrow(dim, start, length)
        if scale is None:
            values, scale = quantize_weight(part.to(dst.device))
            dst.copy_(values)
            (scales.narrow(0, at, length) if dim == 0 else scales).copy_(scale)
            return
        dst.copy_(part)
        if form.block == (0, 0):
            rows = _per_row(scale, tensor.shape[0], source)
            (scales.narrow(0, at, length).copy_(rows.narrow(0, start, length)) if dim == 0 else scales.copy_(rows))
            return
        wanted = [-(-n // b) for n, b in zip(tensor.shape, form.block, strict=True)]
        if list(scale.shape) != wanted:
            raise ModelLoadError(
                f"the scales of {source.where} have shape {list(scale.shape)}; blocks of {list(form.block)} ask for "
                f"{wanted}"
            )
        size = form.block[dim]
        num = -(-length // size)
        scales.narrow(dim, at // size, num).copy_(scale.narrow(dim, start // size, num))

    def _widen(self, form: Form, scale: torch.Tensor) -> None:
        """Pieces share their inputs, so the largest of their scales holds for all."""
        here = self._shards[form.input_name]
        with self._lock:
            here.copy_(torch.maximum(here, scale.to(here.device)))


def _per_row(scale: torch.Tensor, rows: int, source: Source) -> torch.Tensor:
    if scale.numel() == 1:
        return scale.reshape(1).expand(rows)
    if scale.numel() != rows:
        raise ModelLoadError(
            f"{source.where} has {rows} rows and {scale.numel()} scales; one, or one per row is wanted"
        )
    return scale.reshape(rows)


def fill_dummy(shards: dict[str, torch.Tensor], found: dict[str, Form], whole: dict[str, torch.Tensor]) -> None:
    """Weights as `whole` has them, in fp8 (a checkpoint that is not there cannot say its own scales)."""
    for name, form in found.items():
        values, scale = quantize_weight(whole.pop(name))
        shards[name].copy_(values)
        if form.block == (0, 0):
            shards[form.scale.name].copy_(scale)
        else:
            shards[form.scale.name].fill_(float(scale.max()))
        if form.static:
            shards[form.input_name].fill_(0.02)
