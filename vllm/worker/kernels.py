"""Which kernel runs each op, chosen once: for the runner, and for `vllm plan --ops`, which asks the same function.

Kernels say in torch's words where they can run, so the choice is made on this side of the bridge (docs/adr/0008).
Does not know: weights, steps. Called by: make, the plan verb.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from vllm.layers.build import dtype_of
from vllm.ops.table import Kernels, Target, select
from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MLP, MoE
from vllm.parts.foreign import Foreign
from vllm.platforms.base import platform_of
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan
from vllm.util.catalog import Catalogue
from vllm.util.log import get_logger

log = get_logger(__name__)
Network = Decoder | Foreign


def kernels_for(network: Network, plan: WorkerPlan, kv_plan: KVPlan) -> Kernels:
    """A kernel for every op on the plan's device. Raises ValueError for names that do not exist there."""
    if isinstance(network, Decoder):
        sizes = {b.mixer.heads.dim for b in network.blocks}
    else:
        sizes = {d for a in network.calls for d in (a.dim, a.v_dim)}
    is_small = dtype_of(kv_plan.dtype).itemsize == 1
    return choose_kernels(plan, sizes | {g.block_size for g in kv_plan.groups}, is_small)


def choose_kernels(plan: WorkerPlan, sizes: Iterable[int] = (), small_cache: bool = False) -> Kernels:
    """As `kernels_for`; `sizes` are those of the network that kernels cut into vectors: heads and cache blocks.

    `small_cache`: it keeps 8 bits a value.
    """
    device = torch.device(plan.device)
    platform = platform_of(device)
    capability = platform.capability(device.index or 0)
    target = Target(device.type, dtype_of(plan.dtype), plan.deterministic, plan.quantization, capability)
    wanted = dict(plan.kernels)
    if device.type == "cpu" and small_cache and not wanted:
        # why: the compiled kernel reads no 8 bits, and must not seem to run where steps are recorded
        wanted["attention"] = "tiled" if plan.deterministic else "reference"
    elif plan.deterministic and not wanted and device.type == "cpu" and any(size % 16 for size in sizes):
        # why: kernels for whole vectors hand such shapes to the reference, which is not deterministic
        wanted["attention"] = "tiled"
    return select(target, wanted, platform.kernel_folders())


def used_ops(network: Network, plan: WorkerPlan, ops: Kernels) -> set[str]:
    """Ops that a step of this network calls."""
    used = {"linear", "attention", "draw"}
    if platform_of(plan.device).runs_behind():
        used |= {"gather_rows", "pick"}
    if isinstance(network, Foreign):
        return used
    used |= {"embedding", "split_heads"}
    if any(block.mixer.rope is not None for block in network.blocks):
        used.add("turns")
    for block in dict.fromkeys(network.blocks):
        norms = (block.pre_mixer, block.pre_ffn, block.post_mixer, block.post_ffn, network.final_norm)
        used |= {"layer_norm" if norm.kind == "layer" else "rms_norm" for norm in norms if norm is not None}
        ffns: tuple[MLP | None, ...] = (block.ffn,) if isinstance(block.ffn, MLP) else (block.ffn.shared,)
        used |= {"activate_mul" if ffn.gated else "activate" for ffn in ffns if ffn is not None}
        used |= {"choose", "experts"} if isinstance(block.ffn, MoE) else set()
    if "rms_norm" in used:
        used.add("add_rms_norm")
    if network.head.softcap is not None:
        used.add("softcap")
    if plan.quantization != "none":
        # why: in the blocks the method's own map and what feeds it take the place of the plain one
        product = Catalogue("vllm.quantization").load(plan.quantization).OP
        used.add(product)
        used |= {name for name in ops.chosen if name.endswith("quantize") and "fp8" in product}
    return used


def warn_of_references(network: Network, plan: WorkerPlan, ops: Kernels) -> None:
    """Say once that a GPU runs what was written for clearness."""
    missed = ops.missed(used_ops(network, plan, ops))
    if missed and plan.device != "cpu" and not plan.kernels and plan.tp_rank == plan.pp_rank == 0:
        log.warning("slow: no kernel for this device and dtype does %s; the reference runs", ", ".join(missed))


def table(network: Network, plan: WorkerPlan, kv_plan: KVPlan) -> str:
    """Op by op what would run, for a person to read."""
    ops = kernels_for(network, plan, kv_plan)
    used = used_ops(network, plan, ops)
    missed = ops.missed(used)
    lines = [f"kernels on {plan.device} in {plan.dtype}:"]
    for name in sorted(used):
        slow = "   slow: no kernel for this device and dtype" if name in missed else ""
        lines.append(f"  {name:22} {ops.chosen[name].name}{slow}".rstrip())
    return "\n".join(lines)
