"""The worker's side: build the network again, give it its weights, put it on the cache.

Called by: worker.
"""

from __future__ import annotations

from pathlib import Path

import torch

from vllm.layers.build import dtype_of
from vllm.layers.foreign import ForeignModel
from vllm.loading.foreign.check import check_isolation
from vllm.loading.foreign.config import parse
from vllm.loading.foreign.skeleton import make_skeleton
from vllm.loading.foreign.weights import fill
from vllm.ops.table import Kernels
from vllm.parts.foreign import Foreign
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import LoadPlan, WorkerPlan


def build_foreign(
    foreign: Foreign,
    load_plan: LoadPlan,
    worker_plan: WorkerPlan,
    kv_plan: KVPlan,
    slabs: list[torch.Tensor],
    ops: Kernels,
) -> ForeignModel:
    """The network with its weights, ready to run.

    Raises ModelLoadError for a checkpoint that does not fit, RefusedError for a network that fails its trial.
    """
    dtype, device = dtype_of(worker_plan.dtype), torch.device(worker_plan.device)
    folder, data = Path(load_plan.path), parse(foreign.config)
    whole = make_skeleton(folder, data, dtype, worker_plan.max_model_len, foreign.trust_remote_code)
    fill(whole, load_plan, dtype, device)
    model = ForeignModel(foreign, whole, worker_plan, kv_plan, slabs, ops)
    check_isolation(model, foreign.architecture, kv_plan, device)
    return model
