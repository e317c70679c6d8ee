"""How long a step may take, and a first guess of how long it will: the weights read once, and arithmetic per token.

A server's streams stutter when a long prompt is computed in one step beside them, so their engine cuts prefill to a
time target (scheduler/budget.py, which also corrects the guess by what steps take). Offline nobody reads along: without
a target steps are as large as they may be, which is the most work a second. Does not know: cache, limits of a step.
Called by: resolve.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vllm.parts.decoder import Decoder
from vllm.parts.ffn import MoE
from vllm.parts.tensors import TensorSpec, tensors
from vllm.planning.choices import Choices
from vllm.planning.memory import Network, count_parameters
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.plan import SchedulerPlan
from vllm.quantization.forms import LINEARS

_TARGET = {"cpu": 0.25, "cuda": 0.017}
"""Seconds: on an H200 8B decode steps then take 630 tokens of prefill, the most a millisecond among sizes whose gap
nobody sees; on a CPU words come at reading speed."""
_LAYER_SECONDS = {"cpu": 2e-4, "cuda": 2e-6}
"""What a layer costs beside its bytes and products: calls on the CPU, nodes of a graph on a GPU."""
_GPU = (3e12, 4e14)
"""Bytes and operations a second of a large GPU; half or twice as much is learned within a few steps."""
_CORE_BYTES, _MOST_CORES = 25e9, 8
"""Bytes a second that one core reads, and how many fill the memory's bandwidth."""
_CAUTION = 4.0
"""A token may cost so many times what the operations take. Too little prefill is found out in a few short steps, too
much in one long one."""
_CORE_FLOPS = (("avx512_bf16", 2e11), ("avx512f", 9e10), ("avx2", 4e10), ("", 1e10))


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do."""

    network: Network
    weight_bytes: int
    """Of one rank."""
    tp: int


def with_pace(
    scheduler: SchedulerPlan, work: Work, device: DeviceFacts, is_watched: bool, chosen: Choices
) -> SchedulerPlan:
    """The plan with its step costs, and with a target where tokens are read as they come."""
    bytes_s, flops = _speed(device)
    base = work.weight_bytes / bytes_s + num_layers(work.network) * _LAYER_SECONDS[device.kind]
    each = _CAUTION * 2.0 * active_parameters(work.network) / work.tp / flops
    target = _TARGET[device.kind] if is_watched else 0.0
    if is_watched:
        fits = max(0, int((target - base) / each))
        why = f"prefill beside a stream: {fits} tokens at first, or the time of another decode step where that is more"
        chosen.note("step time", f"{target * 1e3:g} ms", why)
    return replace(scheduler, step_seconds=target, step_base_seconds=base, step_token_seconds=each)


def _speed(device: DeviceFacts) -> tuple[float, float]:
    """(bytes, operations) a second."""
    return cpu_speed(device) if device.kind == "cpu" else _GPU


def cpu_speed(device: DeviceFacts) -> tuple[float, float]:
    """A guess of the (bytes, operations) a second that the cores of this CPU reach together."""
    per_core = next(flops for flag, flops in _CORE_FLOPS if not flag or flag in device.flags)
    return _CORE_BYTES * min(device.num_cores, _MOST_CORES), per_core * device.num_cores


def num_layers(network: Network) -> int:
    """Layers that every step walks through."""
    return len(network.blocks if isinstance(network, Decoder) else network.calls)


def parts_used(network: Decoder) -> Iterator[tuple[TensorSpec, float]]:
    """Each tensor, and the share of it that one token meets: of experts those that are chosen."""
    for spec in tensors(network):
        share = 1.0
        if ".experts." in spec.name:
            ffn = network.blocks[int(spec.name.split(".")[1])].ffn
            assert isinstance(ffn, MoE), f"{spec.name} belongs to no experts"
            share = ffn.top_k / ffn.num_experts
        yield spec, share


def active_parameters(network: Network) -> int:
    """Parameters that one token is multiplied with: of experts those that are chosen; no token table, but the head."""
    if not isinstance(network, Decoder):
        return count_parameters(network)
    used = (int(spec.numel * share) for spec, share in parts_used(network) if _is_product(spec, network))
    return sum(used)


def quantized_parameters(network: Network) -> int:
    """Of those, what methods store in fewer bits: the maps of the blocks, no head, router or stacked expert."""
    specs = tensors(network) if isinstance(network, Decoder) else []
    return sum(spec.numel for spec in specs if spec.name.endswith(LINEARS))


def _is_product(spec: TensorSpec, network: Decoder) -> bool:
    return spec.name != "embed.weight" or network.head.tied
