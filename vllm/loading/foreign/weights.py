"""A checkpoint into a network of transformers: our readers give the tensors, transformers' own table says what becomes
of their names and shapes (renamings, and converters that stack experts or cut fused projections).

    checkpoint name ─ renamings, one converter ─▶ parameter ─ collect all sources ─▶ convert ─▶ copy to the device

Does not know the cache. Invariants: a parameter that stays without a value is an error that names it; tensors nobody
asked for are named in the log. Called by: build.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vllm.errors import ModelLoadError
from vllm.loading import dummy
from vllm.loading.foreign.config import attribute, in_one_line
from vllm.loading.readers.folder import open_folder
from vllm.loading.readers.source import Source
from vllm.parts.tensors import TensorSpec
from vllm.protocol.plan import LoadPlan
from vllm.util.log import get_logger

_log = get_logger(__name__)
_READERS = 8
# why: a converter holds the experts of a layer twice, which may be tens of gigabytes
_CONVERTERS = 2
# why: buffers that old checkpoints kept and that are computed now
_COMPUTED = (r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$", r"(^|\.)position_ids$", r"\.attn\.(masked_)?bias$")


def fill(whole: nn.Module, load_plan: LoadPlan, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter and persistent buffer its value, on `device`. Raises ModelLoadError."""
    filling = _Filling(whole, dtype, device)
    if load_plan.load_format == "dummy":
        filling.dummies(load_plan.seed)
    else:
        filling.read(open_folder(Path(load_plan.path), load_plan.load_format))
        filling.tie()
        filling.check(load_plan.path)
    whole.to(device)


class _Filling:
    """One run: knows which parameters have their value."""

    def __init__(self, whole: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        self._whole, self._device, self._dtype = whole, device, dtype
        self._slots: dict[str, torch.Tensor] = whole.state_dict(keep_vars=True)
        self._done: set[str] = set()
        self._room = threading.Semaphore(_CONVERTERS)
        self._float32 = _float32_names(whole, dtype)

    def dummies(self, seed: int) -> None:
        """Seeded noise everywhere."""
        for name, slot in whole_names(self._slots).items():
            self._put(name, torch.empty(slot.shape, dtype=self._dtype_of(name, slot)))
        values = {n: t.data for n, t in self._whole.state_dict(keep_vars=True).items() if t.is_floating_point()}
        dummy.fill(values, {n: TensorSpec(n, tuple(t.shape)) for n, t in values.items()}, seed)

    def read(self, sources: Iterable[Source]) -> None:
        """Copy all tensors of the checkpoint, several parameters at a time."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        table = get_model_conversion_mapping(self._whole)
        renamings = [t for t in table if isinstance(t, WeightRenaming)]
        converters = [t for t in table if isinstance(t, WeightConverter)]
        of_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
        prefix = str(self._whole.base_model_prefix)
        work: dict[tuple[str, int], list[tuple[str, Source]]] = defaultdict(list)
        for source in sorted(sources, key=lambda s: _natural(s.name)):
            name, pattern = rename_source_key(source.name, renamings, converters, prefix, self._slots)
            if name not in self._slots and source.name in self._slots:
                name, pattern = source.name, None
            if name not in self._slots:
                self._leave(source)
                continue
            converter = id(of_pattern[pattern]) if pattern else 0
            work[name, converter].append((pattern or "", source))
        by_id = {id(c): c for c in converters}
        with ThreadPoolExecutor(_READERS, thread_name_prefix="load") as pool:
            for _ in pool.map(lambda item: self._place(item[0][0], by_id.get(item[0][1]), item[1]), work.items()):
                pass

    def tie(self) -> None:
        """Parameters that are one and the same become one, whichever of their names the checkpoint has."""
        for target, source in (attribute(self._whole, "all_tied_weights_keys") or {}).items():
            if source not in self._done and target in self._done:
                target, source = source, target
            if source in self._done and target not in self._done:
                module, leaf = _owner(self._whole, target)
                setattr(module, leaf, self._whole.get_parameter(source))
                self._done.add(target)

    def check(self, folder: str) -> None:
        """Every parameter has its value."""
        spare = [re.compile(p) for p in attribute(self._whole, "_keys_to_ignore_on_load_missing") or ()]
        lost = [n for n in self._slots if n not in self._done and not any(p.search(n) for p in spare)]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise ModelLoadError(f"the checkpoint in {folder} lacks {lost[0]}{more}, which {self._kind} needs")

    @property
    def _kind(self) -> str:
        return type(self._whole).__name__

    def _leave(self, source: Source) -> None:
        ignored = (*_COMPUTED, *(attribute(self._whole, "_keys_to_ignore_on_load_unexpected") or ()))
        if not any(re.search(pattern, source.name) for pattern in ignored):
            _log.warning("%s has no place in %s and is left out", source.where, self._kind)

    def _place(self, name: str, converter: Any, parts: list[tuple[str, Source]]) -> None:
        """Convert the sources of one parameter (or of several that come out of one tensor) and copy them."""
        if converter is None:
            self._put_checked(name, parts[-1][1].read(), parts[-1][1].where)
            return
        with self._room:
            self._convert(name, deepcopy(converter), parts)

    def _convert(self, name: str, converter: Any, parts: list[tuple[str, Source]]) -> None:
        where = parts[0][1].where
        for pattern, source in parts:
            converter.add_tensor(name, source.name, pattern, source.read())
        try:
            made = converter.convert(name, model=self._whole, config=self._whole.config)
        except Exception as error:
            raise ModelLoadError(
                f"{where} cannot be converted for {self._kind} ({name}): {in_one_line(error)}"
            ) from None
        for target, value in made.items():
            self._put_checked(target, value[0] if isinstance(value, list) else value, where)

    def _put_checked(self, name: str, value: torch.Tensor, where: str) -> None:
        slot = self._slots.get(name)
        if slot is None:
            raise ModelLoadError(f"{where} becomes {name}, which {self._kind} does not have")
        if value.shape != slot.shape:
            raise ModelLoadError(
                f"tensor {where} has shape {list(value.shape)}; config.json asks for {list(slot.shape)} ({name})"
            )
        self._put(name, value)

    def _put(self, name: str, value: torch.Tensor) -> None:
        slot = self._slots[name]
        module, leaf = _owner(self._whole, name)
        placed = torch.empty(slot.shape, dtype=self._dtype_of(name, slot), device=self._device)
        placed.copy_(value)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(placed, requires_grad=False)
        else:
            module._buffers[leaf] = placed
        self._done.add(name)

    def _dtype_of(self, name: str, slot: torch.Tensor) -> torch.dtype:
        """Parameters take the plan's dtype, but for those that a model keeps in float32; buffers keep their own."""
        if not slot.is_floating_point():
            return slot.dtype
        if self._float32 is not None and self._float32.search(name):
            return torch.float32
        return self._dtype if slot.dtype == self._dtype else slot.dtype


def whole_names(slots: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each parameter once: of tied names the first."""
    seen: dict[int, str] = {}
    return {name: slot for name, slot in slots.items() if seen.setdefault(id(slot), name) == name}


def _float32_names(whole: nn.Module, dtype: torch.dtype) -> re.Pattern[str] | None:
    """Names that transformers keeps in float32 when the rest is not."""
    names = set(attribute(whole, "_keep_in_fp32_modules_strict") or ())
    if dtype == torch.float16:
        names |= set(attribute(whole, "_keep_in_fp32_modules") or ())
    if not names or dtype == torch.float32:
        return None
    return re.compile("|".join(rf"(^|\.){name.replace('*', '[^.]*')}($|\.)" for name in sorted(names)))


def _owner(whole: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return whole.get_submodule(path), leaf


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts experts.2 before experts.10: converters stack tensors in the order in which they come."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
