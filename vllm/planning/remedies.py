"""What would fit in place of what does not: changes of the arguments, each planned anew before it is named.

A change that keeps the context as it was asked comes first; else the longest that fits with it is said. Does not know
bytes. Called by: resolve, when a plan came to CapacityError.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from vllm.config.args import EngineArgs
from vllm.planning.plan import Plan
from vllm.protocol.facts import DeviceFacts
from vllm.util.arith import human_bytes

Make = Callable[[EngineArgs, DeviceFacts], Plan]
_SIZES = (2, 4, 8)
_FEW_TOKENS = 1024
_MOST = 3
"""Ways that are told."""


def what_fits(args: EngineArgs, device: DeviceFacts, make: Make) -> str:
    """The sentence for a person: arguments with which the model runs here, or what else it needs."""
    whole: list[str] = []
    shorter: list[tuple[int, str]] = []
    done: list[dict[str, Any]] = []
    for change in _changes(args, device):
        if any(small.items() <= change.items() for small in done):
            continue  # less than this is enough
        words = ", ".join(f"{name}={value!r}" for name, value in change.items())
        ranks = args.pipeline_parallel_size * int(change.get("tensor_parallel_size", args.tensor_parallel_size))
        if ranks > device.count and device.kind == "cuda":
            words, there = f"{words} on {ranks} such GPUs", replace(device, count=ranks)
        else:
            there = device
        if made := _try(replace(args, **change), there, make):
            whole.append(f"{words} (weights of {human_bytes(made.memory.weights)})")
            done.append(change)
        elif made := _try(replace(args, **change, max_model_len="auto"), there, make):
            length = made.scheduler.max_model_len
            shorter.append((length, f"{words}, max_model_len={length}"))
        if len(whole) == _MOST:
            break
    by_length = sorted(shorter, key=lambda way: -way[0])
    if found := (whole or [words for _, words in by_length])[:_MOST]:
        return f"What would fit: {'; or '.join(found)}."
    most, whole_machine = device.free_bytes * 0.8 / 2 / 1e9, "machine" if device.kind == "cpu" else "GPU"
    return (
        f"No way to store it and no split that is known here would fit; this {whole_machine} holds a model of about "
        f"{most:.1f} billion parameters in 16 bits."
    )


def _try(args: EngineArgs, device: DeviceFacts, make: Make) -> Plan | None:
    try:
        return make(args, device)
    except ValueError:  # it does not fit either, or cannot be
        return None


def _changes(args: EngineArgs, device: DeviceFacts) -> Iterator[dict[str, Any]]:
    """Changes of the arguments, the smallest first."""
    sizes = {
        "kv_cache_memory_bytes": args.kv_cache_memory_bytes,
        "num_gpu_blocks_override": args.num_gpu_blocks_override,
    }
    set_by_hand: dict[str, Any] = {name: None for name, value in sizes.items() if value}
    if set_by_hand:
        yield set_by_hand
    if args.max_num_batched_tokens is None or args.max_num_batched_tokens > _FEW_TOKENS:
        seqs = min(args.max_num_seqs or _FEW_TOKENS, 256)
        yield {"max_num_batched_tokens": _FEW_TOKENS, "max_num_seqs": seqs}
    for small in (smaller := list(_smaller(args, device))):
        yield small
    if device.kind == "cuda":
        for tp in _SIZES:
            for small in ({}, *smaller):
                yield {"tensor_parallel_size": tp, **small}
    elif not set_by_hand and (half := device.free_bytes // 2 >> 30 << 30):
        # why: by itself the cache takes a quarter of what is free
        yield {"kv_cache_memory_bytes": half}


def _smaller(args: EngineArgs, device: DeviceFacts) -> list[dict[str, Any]]:
    """Smaller weights."""
    if args.quantization not in (None, "none"):
        return []
    if device.kind == "cuda":
        return [{"quantization": "fp8"}] if device.fp8 else []
    short: list[dict[str, Any]] = [{"dtype": "bfloat16"}] if args.dtype in ("auto", "float", "float32") else []
    return [*short, {"quantization": "int8"}, *({**way, "quantization": "int8"} for way in short)]
