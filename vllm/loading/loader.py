"""The loader: every tensor of this rank, allocated once on its device and filled piece by piece.

    checkpoint name ─ Matcher ─▶ (target, piece, expert) ─ unpack ─ this rank's rows or columns ─ copy ─▶ destination

Does not know file formats (readers) or what the tensors mean (layers). Invariants: destinations are the only tensors
allocated; nothing stays unfilled; a tensor nobody expects, of a wrong shape, or filled twice is an error naming it.
Called by: worker.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from vllm.errors import ModelLoadError
from vllm.loading import dummy, quantized
from vllm.loading.match import Match, Matcher
from vllm.loading.one_by_one import OneByOne
from vllm.loading.readers.folder import open_folder
from vllm.loading.readers.source import Source
from vllm.loading.unpack import UNPACK
from vllm.parts.checkpoint import Weights
from vllm.parts.decoder import Decoder
from vllm.parts.tensors import TensorSpec, stage_tensors, tensors
from vllm.platforms.pages import passing
from vllm.protocol.plan import LoadPlan, WorkerPlan
from vllm.quantization.forms import Form, forms
from vllm.quantization.read import METHODS

_READERS = 8


def load_weights(
    decoder: Decoder,
    weights: Weights,
    load_plan: LoadPlan,
    worker_plan: WorkerPlan,
    given: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Our names -> this rank's shard, contiguous, on the plan's device in its dtype.

    A tied head has no tensor of its own; the last pipeline stage then holds `embed.weight`. `given`: tensors by their
    name in a checkpoint, which stand in for those of the folder. Raises ModelLoadError.
    """
    specs = {s.name: s for s in stage_tensors(decoder, worker_plan.pp_size, worker_plan.pp_rank)}
    in_fp8 = _forms(specs, weights, load_plan, worker_plan)
    packs = worker_plan.quantization != "none" and not METHODS.load(worker_plan.quantization).AT_LOAD
    if packs and load_plan.stored is None:
        return _one_by_one(decoder, weights, load_plan, worker_plan, specs, given)
    shards = {**_allocate(specs, worker_plan, in_fp8), **quantized.allocate(in_fp8, worker_plan)}
    if load_plan.load_format == "dummy":
        _fill_dummy(shards, specs, in_fp8, load_plan.seed, worker_plan)
        if given:
            _Filling(decoder, weights, specs, shards, worker_plan, in_fp8, None).run(_sources(given), None)
        return shards
    sources = open_folder(Path(load_plan.path), load_plan.load_format)
    scales = None if load_plan.stored is None else quantized.Scales(load_plan.stored)
    sources = sources if scales is None else scales.keep(sources)
    filling = _Filling(decoder, weights, specs, shards, worker_plan, in_fp8, scales)
    filling.run(filling.replaced(sources, _sources(given or {})), load_plan.path)
    return shards if scales is None else {**shards, **scales.cache_scales(shards)}


def _one_by_one(
    decoder: Decoder,
    weights: Weights,
    load_plan: LoadPlan,
    plan: WorkerPlan,
    specs: dict[str, TensorSpec],
    given: Mapping[str, torch.Tensor] | None,
) -> dict[str, torch.Tensor]:
    """Tensors that are read when a layer takes them: what packs weights as it is built then never holds all of them."""

    def room(name: str) -> torch.Tensor:
        return passing(specs[name].local_shape(plan.tp_size, plan.tp_rank), getattr(torch, plan.dtype))

    is_dummy = load_plan.load_format == "dummy"
    sources = [] if is_dummy else open_folder(Path(load_plan.path), load_plan.load_format)
    shards: dict[str, torch.Tensor] = {}
    filling = _Filling(decoder, weights, specs, shards, plan, {}, None)
    work: dict[str, list[tuple[Source, Match]]] = defaultdict(list)
    sources = filling.replaced(sources, _sources(given or {}))
    for source, match in filling.claimed(sources, None if is_dummy else load_plan.path):
        work[match.target].append((source, match))

    def read(name: str) -> torch.Tensor:
        shards[name] = room(name)
        if is_dummy:
            dummy.fill({name: shards[name]}, specs, load_plan.seed, plan.tp_size, plan.tp_rank)
        for item in work.pop(name, ()):
            filling.place(*item)
        return shards.pop(name)

    return OneByOne(specs, read)


def check_names(decoder: Decoder, weights: Weights, names: Iterable[str]) -> None:
    """Raises ModelLoadError for a name that no tensor of a checkpoint of this network has."""
    matcher = Matcher(weights, {s.name for s in tensors(decoder)} | {"head.weight"})
    for name in names:
        if matcher.find(name) is None and not matcher.ignored(name):
            raise ModelLoadError(f"the network has no tensor {name!r}; names are those of its checkpoint's files")


def _sources(given: Mapping[str, torch.Tensor]) -> list[Source]:
    """Tensors of this process as a file would have them."""
    return [Source(name, "what was given", tuple(one.shape), lambda one=one: one) for name, one in given.items()]  # type: ignore[misc]


def _forms(specs: dict[str, TensorSpec], weights: Weights, load_plan: LoadPlan, plan: WorkerPlan) -> dict[str, Form]:
    """Weights that are kept in fp8."""
    if plan.quantization == "none" or not METHODS.load(plan.quantization).AT_LOAD:
        return {}
    return forms(specs.values(), weights, load_plan.stored, plan.tp_size)


def _allocate(specs: dict[str, TensorSpec], plan: WorkerPlan, but: Collection[str] = ()) -> dict[str, torch.Tensor]:
    dtype: torch.dtype = getattr(torch, plan.dtype)
    size, rank = plan.tp_size, plan.tp_rank
    shards = {}
    for name, spec in specs.items():
        if name not in but:
            make = torch.zeros if spec.is_padded(size, rank) else torch.empty
            shards[name] = make(spec.local_shape(size, rank), dtype=dtype, device=plan.device)
    return shards


def _fill_dummy(
    shards: dict[str, torch.Tensor],
    specs: dict[str, TensorSpec],
    in_fp8: dict[str, Form],
    seed: int,
    plan: WorkerPlan,
) -> None:
    """Random weights; those in fp8 are the same ones, quantized one after the other."""
    plain = {name: shard for name, shard in shards.items() if name in specs and name not in in_fp8}
    dummy.fill(plain, specs, seed, plan.tp_size, plan.tp_rank)
    for name, form in in_fp8.items():
        whole = _allocate({name: specs[name]}, plan)
        dummy.fill(whole, specs, seed, plan.tp_size, plan.tp_rank)
        quantized.fill_dummy(shards, {name: form}, whole)


class _Filling:
    """One run of copying: knows what went where, so that gaps and doubles are found."""

    def __init__(
        self,
        decoder: Decoder,
        weights: Weights,
        specs: dict[str, TensorSpec],
        shards: dict[str, torch.Tensor],
        plan: WorkerPlan,
        in_fp8: dict[str, Form],
        scales: quantized.Scales | None,
    ):
        everything = {s.name for s in tensors(decoder)}
        # why: a checkpoint may hold the tied head's table although it equals the embedding's
        self._spare = {"head.weight"} if decoder.head.tied else set()
        self._matcher = Matcher(weights, everything | self._spare)
        self._specs, self._shards, self._plan = specs, shards, plan
        self._origin: dict[tuple[str, int, int], str] = {}
        self._filled: dict[str, int] = defaultdict(int)
        self._in_fp8, self._scales = in_fp8, scales
        self._filler = quantized.Filler(shards, scales, plan)

    def replaced(self, sources: list[Source], given: list[Source]) -> list[Source]:
        """`sources` with those of `given` in place of the ones that fill the same parts."""
        taken = {(m.target, m.expert, m.piece) for m in (self._matcher.find(one.name) for one in given) if m}
        whole = {(target, expert) for target, expert, piece in taken if piece is None}

        def stays(source: Source) -> bool:
            m = self._matcher.find(source.name)
            return m is None or ((m.target, m.expert, m.piece) not in taken and (m.target, m.expert) not in whole)

        return [*(s for s in sources if stays(s)), *given] if given else sources

    def run(self, sources: list[Source], folder: str | None) -> None:
        """Copy all that is ours, several tensors at a time."""
        work = self.claimed(sources, folder)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="load") as pool:
            for _ in pool.map(lambda item: self.place(*item), work):
                pass

    def claimed(self, sources: list[Source], folder: str | None) -> list[tuple[Source, Match]]:
        """What is ours and where it goes, after it was found whole. Raises ModelLoadError.

        No `folder`: what is not there stays as it is.
        """
        work: list[tuple[Source, Match]] = []
        unknown: list[Source] = []
        for source in sources:
            match = self._matcher.find(source.name)
            if match is None:
                if not self._matcher.ignored(source.name):
                    unknown.append(source)
            elif match.target in self._specs:
                self._claim(source, match)
                work.append((source, match))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ModelLoadError(
                f"the checkpoint holds tensors that its config.json has no place for: {unknown[0].where}{more}"
            )
        if folder is not None:
            self._check_complete(folder)
        return work

    def _claim(self, source: Source, match: Match) -> None:
        """Note which part of a target the source fills; the same part twice is an error."""
        spec = self._specs[match.target]
        num_pieces = max(1, len(spec.pieces))
        experts = range(spec.shape[0]) if _is_expert_stack(spec) else range(1)
        for e in experts if match.expert is None else (match.expert,):
            for p in range(num_pieces) if match.piece is None else (match.piece,):
                if p >= num_pieces or e not in experts:
                    raise ModelLoadError(f"the checkpoint has {source.where}, but its config.json has no room for it")
                before = self._origin.setdefault((spec.name, e, p), source.where)
                if before != source.where:
                    raise ModelLoadError(f"{before} and {source.where} are the same parameter")
                self._filled[spec.name] += 1

    def _check_complete(self, folder: str) -> None:
        for spec in self._specs.values():
            experts = spec.shape[0] if _is_expert_stack(spec) else 1
            wanted = experts * max(1, len(spec.pieces))
            if self._filled[spec.name] != wanted:
                names = " or ".join(self._matcher.sources_of(spec.name)[:3])
                raise ModelLoadError(
                    f"the checkpoint in {folder} lacks {names or spec.name} "
                    f"({self._filled[spec.name]} of {wanted} parts of {spec.name} found)"
                )

    def place(self, source: Source, match: Match) -> None:
        """Copy this rank's share of one tensor to where it goes."""
        spec = self._specs[match.target]
        tensor, dst = source.read(), self._shards[spec.name]
        shape, dim = spec.shape, spec.shard_dim or 0
        form = self._in_fp8.get(spec.name)
        if self._scales is not None and form is None:
            tensor = self._scales.restored(source, tensor)
        if match.unpack:
            if self._scales is not None and form is not None:
                raise ModelLoadError(f"{source.where} is quantized and not laid out as we do it, so it cannot be read")
            tensor = UNPACK[match.unpack](tensor, spec)
        if match.expert is not None:
            shape, dim, dst = shape[1:], dim - 1, dst[match.expert]
        self._check_shape(source, tensor, spec, match, shape, dim)
        if form is not None:
            self._filler.place(form, source, tensor, match.piece)
            return
        at = from_ = 0
        for p, (start, length) in enumerate(spec.ranges(self._plan.tp_size, self._plan.tp_rank)):
            if match.piece is None or match.piece == p:
                dst.narrow(dim, at, length).copy_(tensor.narrow(dim, from_ + start, length))
                from_ += spec.pieces[p].size
            at += length
        if not spec.pieces:
            dst.copy_(tensor)

    @staticmethod
    def _check_shape(
        source: Source, tensor: torch.Tensor, spec: TensorSpec, match: Match, shape: tuple[int, ...], dim: int
    ) -> None:
        wanted = list(shape)
        if match.piece is not None:
            wanted[dim] = spec.pieces[match.piece].size
        if list(tensor.shape) != wanted:
            raise ModelLoadError(
                f"tensor {source.where} has shape {list(source.shape)}; config.json asks for {wanted}"
                f"{' after unpacking' if match.unpack else ''} ({spec.name})"
            )


def _is_expert_stack(spec: TensorSpec) -> bool:
    return ".experts." in spec.name
