"""Compile a network's kernels while its weights load, so that the first request finds them ready.

    description ─▶ one layer of each sort, weights nobody fills ─▶ a prompt and a decode that call kernels and run none

How to call kernels without running them is the attention kernel's business: without its `rehearsal` nothing is done.
What goes wrong here costs time later and nothing else. Does not know: checkpoints, rows. Called by: executor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from vllm.layers.build import Model, build, dtype_of, make_slabs
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Kernels
from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MoE
from vllm.parts.tensors import tensors
from vllm.platforms.base import platform_of
from vllm.protocol.kv import KVGroup, KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.util.log import get_logger
from vllm.worker.kernels import kernels_for

log = get_logger(__name__)
_MANY, _FEW = 32, 2
"""Tokens of the prompts: kernels for many tokens and for few are not the same."""


def rehearse(decoder: Decoder, worker_plan: WorkerPlan, kv_plan: KVPlan) -> threading.Thread | None:
    """Start compiling; None where nothing is to be gained. The interpreter does not end before the thread does."""
    device = torch.device(worker_plan.device)
    if worker_plan.tp_size * worker_plan.pp_size > 1 or any(isinstance(b.ffn, MoE) for b in decoder.blocks):
        return None
    ops = kernels_for(decoder, worker_plan, kv_plan)
    silently = ops.chosen["attention"].helpers.get("rehearsal")
    if silently is None or worker_plan.quantization not in ("none", "int8"):
        return None
    platform_of(device).prepare(device.index or 0, worker_plan.num_threads)
    thread = threading.Thread(target=_run, args=(silently, decoder, worker_plan, kv_plan, ops), name="rehearsal")
    thread.start()
    return thread


def _run(
    silently: Callable[[], AbstractContextManager[None]],
    decoder: Decoder,
    worker_plan: WorkerPlan,
    kv_plan: KVPlan,
    ops: Kernels,
) -> None:
    try:
        with torch.inference_mode():
            # why: between acts the first decode step may be recorded, which has to wait for all of one
            for act in _acts(*_one_of_each(decoder, kv_plan), replace(worker_plan, max_model_len=_MANY), ops):
                with silently():
                    act()
    except Exception as error:  # why: the real step says it better, if it fails at all
        log.debug("kernels are not compiled ahead: %s", error)


def _one_of_each(decoder: Decoder, kv_plan: KVPlan) -> tuple[Decoder, KVPlan]:
    """The network and the cache of one layer of each sort."""
    kept = [i for i, block in enumerate(decoder.blocks) if block not in decoder.blocks[:i]]
    groups = [
        KVGroup(g.kind, tuple(n for n, i in enumerate(kept) if i in g.layers), g.block_size) for g in kv_plan.groups
    ]
    cache = replace(kv_plan, groups=tuple(groups), num_blocks=2, num_slabs=len(kept))
    return replace(decoder, blocks=tuple(decoder.blocks[i] for i in kept)), cache


def _acts(decoder: Decoder, kv_plan: KVPlan, worker_plan: WorkerPlan, ops: Kernels) -> list[Callable[[], object]]:
    """What is called, in the order in which requests ask for it."""
    # why: memory that nobody writes to takes none
    weights = {s.name: torch.empty(s.shape, dtype=dtype_of(worker_plan.dtype)) for s in tensors(decoder)}
    models: list[Model] = []

    def first() -> None:
        models.append(build(decoder, weights, worker_plan, kv_plan, make_slabs(kv_plan, torch.device("cpu")), ops))
        step(_MANY)

    def step(length: int, lines: int = 1) -> torch.Tensor:
        return models[0].logits(models[0](_batch(length, kv_plan))[-lines:])

    def choose() -> None:
        ops.draw(step(1), torch.zeros(1, 2, dtype=torch.int32))

    return [first, lambda: step(_FEW), choose, lambda: step(_MANY, _MANY)]


def _batch(length: int, kv_plan: KVPlan) -> Batch:
    slots, lens = torch.zeros(length, dtype=torch.int64), torch.tensor([length], dtype=torch.int32)
    return Batch(
        token_ids=slots,
        positions=slots,
        query_start=torch.tensor([0, length], dtype=torch.int32),
        seq_lens=lens,
        groups=[GroupBatch(slots, torch.zeros(1, 1, dtype=torch.int32), g.block_size) for g in kv_plan.groups],
        num_tokens=length,
        num_seqs=1,
        max_query_len=length,
        max_seq_len=length,
        query_lens=[length],
        host_seq_lens=[length],
    )
