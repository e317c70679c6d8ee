"""The KV pool: how many blocks, from what was asked, what is needed and what memory is left; and the context it allows.

    on a GPU    gpu_memory_utilization of the device, less others, weights, a step and the platform's own
    on a CPU    need (usual sequences, or one of the longest), at most a quarter of free memory: what a cache takes is
                lost to everybody else

Raises CapacityError, which says what would fit. Does not know how blocks are used. Called by: resolve.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from vllm.config.args import EngineArgs
from vllm.errors import CapacityError, RefusedError, ValidationError
from vllm.kv.groups import bytes_needed, make_kv_plan, max_tokens_that_fit
from vllm.parts.tensors import Piece, stage_layers
from vllm.planning.choices import Choices
from vllm.planning.memory import Network, count_parameters
from vllm.planning.plan import Memory
from vllm.protocol.facts import DeviceFacts
from vllm.protocol.kv import FullKV, KVKind, KVPlan, SlidingKV
from vllm.protocol.plan import SchedulerPlan
from vllm.util import env
from vllm.util.arith import human_bytes

_BLOCK_SIZE = 64
_USUAL_LEN = 1024
"""Tokens per sequence that the default CPU cache is made for."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the cache must fit into: the devices, how the model is split over them, and the bytes already spent."""

    device: DeviceFacts
    tp: int
    pp: int
    dtype: str
    spent: Memory
    quantization: str = "none"

    @property
    def stored(self) -> str:
        """The type of the weights, in words."""
        return self.dtype if self.quantization == "none" else f"{self.dtype} and {self.quantization}"

    @property
    def ranks_here(self) -> int:
        """Ranks that share the memory of one device."""
        return self.tp * self.pp if self.device.kind == "cpu" else 1


def kv_plan(args: EngineArgs, decoder: Network, scheduler: SchedulerPlan, room: Room, chosen: Choices) -> KVPlan:
    """The pool, the same number of blocks on every rank. Raises CapacityError, RefusedError, ValidationError."""
    dtype = _cache_dtype(args, decoder.kv_kinds(), room, chosen)
    size, kinds = args.block_size or _BLOCK_SIZE, decoder.kv_kinds()
    _check_block_size(size, room.device)
    one = make_kv_plan(kinds, dtype, num_blocks=2, block_size=size)
    if args.block_size is None:
        chosen.note("block_size", size, "what the attention kernels read fastest")
    if args.num_gpu_blocks_override:
        return _checked(replace(one, num_blocks=args.num_gpu_blocks_override + 1), decoder, room)
    budget, why = _budget(args, decoder, one, scheduler, room)
    block = rank_block_bytes(one, len(kinds), room.tp, room.pp)
    if budget < 2 * block:
        raise CapacityError(_too_large(decoder, room, budget + room.spent.total, 2 * block))
    chosen.note("KV cache", human_bytes(budget), why)
    return _checked(replace(one, num_blocks=budget // block), decoder, room)


_SMALL = {"fp8": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}
"""What the user says and how many bits of it the cache keeps: 8 a value, with one scale for the keys of a layer and one
for its values, from the checkpoint or 1."""


def _cache_dtype(args: EngineArgs, kinds: list[KVKind], room: Room, chosen: Choices) -> str:
    said = args.kv_cache_dtype
    if said in ("auto", room.dtype):
        return room.dtype
    if said not in _SMALL:
        raise RefusedError(
            f"kv_cache_dtype {said!r} is not supported with dtype {room.dtype}; auto stores keys and values as "
            f"{room.dtype}, fp8 in half of a 16-bit type's bytes.",
            field="kv_cache_dtype",
            value=said,
        )
    if room.device.kind == "cpu":
        chosen.note(
            "kv_cache_dtype", _SMALL[said], "right on a CPU but slow: its attention kernels read 16 and 32 bits"
        )
    elif not room.device.fp8:
        raise RefusedError(
            f"kv_cache_dtype {said!r} needs a GPU with 8-bit floating-point numbers (compute capability 8.9 or "
            f"later); {room.device.name} has none.",
            field="kv_cache_dtype",
            value=said,
        )
    elif not all(_even_heads(kind) for kind in kinds):
        # why: with other sizes a kernel that Triton 3.6 makes of ours reads wrong memory (docs/log.md, 2026-11-21)
        raise RefusedError(
            f"kv_cache_dtype {said!r} needs keys and values of one size, of at least 64 a head, on a GPU; this network "
            f"has others. Leave it at auto.",
            field="kv_cache_dtype",
            value=said,
        )
    return _SMALL[said]


def _even_heads(kind: KVKind) -> bool:
    return isinstance(kind, FullKV | SlidingKV) and kind.head_dim == kind.v_head_dim >= 64


def _check_block_size(size: int, device: DeviceFacts) -> None:
    """GPU kernels read the keys of a block as rows of one matrix product."""
    if device.kind == "cuda" and (size < 16 or size & (size - 1)):
        raise ValidationError.of("block_size", size, "a power of two of at least 16 on a GPU", "The default is 64.")


def rank_block_bytes(plan: KVPlan, num_layers: int, tp: int, pp: int) -> int:
    """Bytes of one block, all slabs, on the rank that holds most: its share of the heads, its stage's layers."""
    heads = [g.kind.num_kv_heads for g in plan.groups if isinstance(g.kind, FullKV | SlidingKV)]
    share = max((Fraction(Piece(n, n).shard(tp, 0)[1], n) for n in heads), default=Fraction(1))
    stages = [stage_layers(num_layers, pp, rank) for rank in range(pp)]
    slabs = max(sum(i in stage for i in g.layers) for g in plan.groups for stage in stages)
    return math.ceil(plan.block_bytes * share) * slabs


def _budget(args: EngineArgs, decoder: Network, one: KVPlan, scheduler: SchedulerPlan, room: Room) -> tuple[int, str]:
    """(bytes on one rank, why)."""
    device, spent, ranks = room.device, room.spent.total, room.ranks_here
    if args.kv_cache_memory_bytes:
        return args.kv_cache_memory_bytes, "kv_cache_memory_bytes"
    if device.kind == "cuda":
        top, others = int(device.total_bytes * args.gpu_memory_utilization), device.total_bytes - device.free_bytes
        why = f"gpu_memory_utilization {args.gpu_memory_utilization} of {human_bytes(device.total_bytes)}"
        return top - others - spent, why + (f", less what others hold: {_named(device)}" if device.others else "")
    asked = env.number("VLLM_CPU_KVCACHE_SPACE")
    if asked:
        return int(asked * 2**30), "VLLM_CPU_KVCACHE_SPACE"
    scale = Fraction(rank_block_bytes(one, len(decoder.kv_kinds()), room.tp, room.pp), one.num_slabs * one.block_bytes)
    longest = bytes_needed(one, scheduler.max_model_len)
    usual = bytes_needed(one, min(scheduler.max_model_len, _USUAL_LEN), scheduler.max_num_seqs)
    need, quarter = math.ceil(max(longest, usual) * scale), device.free_bytes // 4 // ranks
    left = device.free_bytes // ranks - spent
    if need <= min(quarter, left):
        return need, f"{scheduler.max_num_seqs} sequences of {_USUAL_LEN} tokens or one of the longest"
    if left < quarter:
        return left, f"what the weights leave of the {human_bytes(device.free_bytes)} that are free"
    least = 2 * rank_block_bytes(one, len(decoder.kv_kinds()), room.tp, room.pp)
    return max(quarter, min(least, left)), f"a quarter of the {human_bytes(device.free_bytes)} that are free"


def _checked(plan: KVPlan, decoder: Network, room: Room) -> KVPlan:
    """The plan, when all of the engine fits beside it into the memory that is free."""
    kv = plan.num_blocks * rank_block_bytes(plan, len(decoder.kv_kinds()), room.tp, room.pp)
    free = room.device.free_bytes // room.ranks_here
    if max(room.spent.total + kv, room.spent.loading) > free:
        raise CapacityError(_too_large(decoder, room, free, kv))
    return plan


def _too_large(decoder: Network, room: Room, free: int, wanted: int) -> str:
    """What is needed on one rank and what there is; `planning/remedies.py` adds what would fit."""
    spent, needed = room.spent, room.spent.total + wanted
    loading = f" ({human_bytes(spent.loading)} while loading)" if spent.loading > needed else ""
    return (
        f"The model does not fit: its {count_parameters(decoder):,} parameters take {human_bytes(spent.weights)} as "
        f"{room.stored}, a step {human_bytes(spent.activations)}, the platform {human_bytes(spent.fixed)} and the KV "
        f"cache {human_bytes(wanted)}, in all {human_bytes(needed)}{loading}; an engine may take "
        f"{human_bytes(max(free, 0))} of {room.device.name}{_held(room.device)}."
    )


def _held(device: DeviceFacts) -> str:
    return f" (others hold {_named(device)})" if device.others else ""


def _named(device: DeviceFacts) -> str:
    return f"{human_bytes(device.total_bytes - device.free_bytes)} ({', '.join(device.others)})"


def fit_context(args: EngineArgs, scheduler: SchedulerPlan, kv: KVPlan, most: int, chosen: Choices) -> SchedulerPlan:
    """One sequence of max_model_len must fit into the pool; else it is refused, or cut where the user said auto."""
    if most >= scheduler.max_model_len:
        return scheduler
    if args.max_model_len in (-1, "auto"):
        chosen.note("max_model_len", most, f"what the KV cache of {human_bytes(kv.total_bytes)} holds")
        return replace(scheduler, max_model_len=most)
    raise CapacityError(
        f"max_model_len {scheduler.max_model_len} needs {human_bytes(bytes_needed(kv, scheduler.max_model_len))} of "
        f"KV cache, and there are {human_bytes(kv.total_bytes)}. The longest that fits is {most}: set "
        f"max_model_len={most} (or 'auto')."
    )


def longest_in(kv: KVPlan) -> int:
    """The longest single sequence that the pool can hold."""
    return max_tokens_that_fit(kv)
