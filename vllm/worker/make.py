"""From plans and tensors to a runner: choose kernels, make the cache, build the model, choose how steps are run.

Called by: executor (in this process) and worker_main (one per rank).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import torch

from vllm.layers.build import build, make_slabs
from vllm.loading.foreign.build import build_foreign
from vllm.ops.table import Kernels
from vllm.parallel.mesh import Mesh
from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MoE
from vllm.parts.foreign import Foreign
from vllm.parts.tensors import Piece, stage_layers
from vllm.platforms.base import platform_of
from vllm.platforms.pages import give_back
from vllm.protocol.kv import FullKV, KVGroup, KVPlan, SlidingKV
from vllm.protocol.plan import LoadPlan, WorkerPlan
from vllm.sampling.lines import Head, Stage
from vllm.util.log import get_logger
from vllm.worker.ahead import AheadRunner
from vllm.worker.kernels import Network, kernels_for, warn_of_references
from vllm.worker.runner import Runner
from vllm.worker.tapes import make_tapes

log = get_logger(__name__)


def make_runner(
    decoder: Decoder,
    weights: dict[str, torch.Tensor],
    worker_plan: WorkerPlan,
    kv_plan: KVPlan,
    mesh: Mesh | None = None,
    extra_stages: Iterable[Stage | Head] = (),
) -> Runner:
    """A runner whose model holds `weights` (this rank's shards by name; the dict is emptied)."""
    device = torch.device(worker_plan.device)
    platform_of(device).prepare(device.index or 0, worker_plan.num_threads)
    mesh = mesh or Mesh()
    kv_plan = rank_kv_plan(kv_plan, len(decoder.blocks), mesh)
    ops = _kernels(decoder, worker_plan, kv_plan)
    with torch.inference_mode():
        slabs = make_slabs(kv_plan, device)
        model = build(decoder, weights, worker_plan, kv_plan, slabs, ops, mesh)
    if device.type == "cpu":
        give_back()
    has_experts = any(isinstance(b.ffn, MoE) for b in decoder.blocks)
    record = _may_record(ops, worker_plan, has_experts)
    if mesh.pp.size > 1 or not platform_of(device).runs_behind():
        record = record and mesh.pp.size * mesh.tp.size == 1
        tapes = make_tapes(model, ops, kv_plan, worker_plan) if record else None
        return Runner(model, slabs, ops, worker_plan, kv_plan, mesh, extra_stages, tapes=tapes)
    runner = AheadRunner(model, slabs, ops, worker_plan, kv_plan, extra_stages, record, mesh)
    runner.held = platform_of(device).hold(worker_plan.step_bytes, worker_plan.graph_bytes, device.index or 0)
    return runner


def _kernels(network: Network, worker_plan: WorkerPlan, kv_plan: KVPlan) -> Kernels:
    ops = kernels_for(network, worker_plan, kv_plan)
    log.debug("kernels: %s", ops.names())
    warn_of_references(network, worker_plan, ops)
    return ops


def _may_record(ops: Kernels, worker_plan: WorkerPlan, has_experts: bool) -> bool:
    """Whether decode steps can be graphs: no kernel in them may look at the host."""
    looking = {"attention": ("reference", "tiled"), "experts": ("reference", "tiled") if has_experts else ()}
    names = ops.names()
    return not worker_plan.enforce_eager and all(names[op] not in kernels for op, kernels in looking.items())


def make_foreign_runner(
    foreign: Foreign,
    load_plan: LoadPlan,
    worker_plan: WorkerPlan,
    kv_plan: KVPlan,
    extra_stages: Iterable[Stage | Head] = (),
) -> Runner:
    """A runner for a network of transformers on one device; its weights are read here."""
    device = torch.device(worker_plan.device)
    platform_of(device).prepare(device.index or 0, worker_plan.num_threads)
    ops = _kernels(foreign, worker_plan, kv_plan)
    with torch.inference_mode():
        slabs = make_slabs(kv_plan, device)
    model = build_foreign(foreign, load_plan, worker_plan, kv_plan, slabs, ops)
    if platform_of(device).runs_behind():  # why: transformers' code may look at the host, so nothing is recorded
        runner = AheadRunner(model, slabs, ops, worker_plan, kv_plan, extra_stages, record=False)
        platform_of(device).hold(worker_plan.step_bytes, 0, device.index or 0)
        return runner
    return Runner(model, slabs, ops, worker_plan, kv_plan, extra_stages=extra_stages)


def rank_kv_plan(plan: KVPlan, num_layers: int, mesh: Mesh) -> KVPlan:
    """The cache of one rank: the same groups and block ids, its stage's layers in them, its heads' bytes per block."""
    if mesh.pp.size * mesh.tp.size == 1:
        return plan
    mine = stage_layers(num_layers, mesh.pp.size, mesh.pp.rank)
    groups = tuple(KVGroup(g.kind, tuple(i for i in g.layers if i in mine), g.block_size) for g in plan.groups)
    heads = [g.kind.num_kv_heads for g in groups if isinstance(g.kind, FullKV | SlidingKV)]
    share = max((Fraction(Piece(n, n).shard(mesh.tp.size, mesh.tp.rank)[1], n) for n in heads), default=Fraction(1))
    block_bytes = math.ceil(plan.block_bytes * share)
    return KVPlan(groups, plan.num_blocks, max(len(g.layers) for g in groups), block_bytes, plan.dtype)
