"""From the KV kinds of a network's layers to the KVPlan: groups, block sizes, and what fits.

For: planning (memory) and kv.manager (windows). Does not know: sequences, devices.

Layers of a kind are split into groups of at most `num_slabs` layers. A block of any group is one piece of every slab,
so all groups must agree on the bytes of a block in a slab: the kind with the fewest elements per token gets the
longest blocks. A group with fewer layers than slabs leaves the rest of its blocks empty; `num_slabs` is chosen so that
a sequence of usual length wastes least.
Invariant: every block size is a power-of-two multiple of the smallest. Called by: planning, tests.
"""

from collections.abc import Sequence as Items
from dataclasses import replace
from math import lcm

from vllm.errors import CapacityError
from vllm.protocol.kv import FullKV, KVGroup, KVKind, KVPlan, LatentKV, SlidingKV
from vllm.util.arith import cdiv, human_bytes, largest

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1}
PagedKV = FullKV | SlidingKV | LatentKV


def make_kv_plan(
    kinds_per_layer: Items[KVKind],
    dtype: str,
    *,
    num_blocks: int | None = None,
    budget_bytes: int | None = None,
    block_size: int = 16,
    usual_len: int = 8192,
) -> KVPlan:
    """The cache of a network whose layer i stores `kinds_per_layer[i]`.

    `block_size` is tokens per block of the kind with the most elements per token. The pool has `num_blocks` blocks
    (the null block counted), or as many as `budget_bytes` holds. `usual_len` is the sequence length, in tokens, for
    which the split into groups is made. CapacityError when the budget does not hold two blocks.
    """
    kinds = [_paged(kind) for kind in kinds_per_layer]
    assert kinds, "a network without layers has no KV cache"
    assert (num_blocks is None) != (budget_bytes is None), "give num_blocks or budget_bytes"
    widest = max(kind.elements_per_token() for kind in kinds)
    layers: dict[PagedKV, list[int]] = {}
    for i, kind in enumerate(kinds):
        layers.setdefault(kind, []).append(i)
    sizes = {kind: block_size * _whole_ratio(widest, kind.elements_per_token()) for kind in layers}
    num_slabs = _choose_slabs(layers, sizes, usual_len)
    groups = tuple(
        KVGroup(kind, tuple(members[i : i + per_group]), sizes[kind])
        for kind, members in layers.items()
        for per_group in (cdiv(len(members), cdiv(len(members), num_slabs)),)
        for i in range(0, len(members), per_group)
    )
    block_bytes = block_size * widest * ITEMSIZE[dtype]
    if num_blocks is None:
        assert budget_bytes is not None
        num_blocks = budget_bytes // (num_slabs * block_bytes)
    if num_blocks < 2:
        raise CapacityError(
            f"the KV cache needs at least two blocks of {human_bytes(num_slabs * block_bytes)}, and there is room for "
            f"{num_blocks}; give it more memory or a smaller block_size"
        )
    return KVPlan(groups, num_blocks, num_slabs, block_bytes, dtype)


def _paged(kind: KVKind) -> PagedKV:
    assert isinstance(kind, FullKV | SlidingKV | LatentKV), f"{type(kind).__name__} has no block table yet"
    return kind


def _whole_ratio(widest: int, elements: int) -> int:
    """The largest power of two p with elements * p <= widest: how much longer this kind's blocks are."""
    return 1 << ((widest // elements).bit_length() - 1)


def _choose_slabs(layers: dict[PagedKV, list[int]], sizes: dict[PagedKV, int], usual_len: int) -> int:
    """The number of layers per group that costs a sequence of `usual_len` tokens the fewest pieces of slab."""
    counts = {kind: len(members) for kind, members in layers.items()}

    def cost(slabs: int) -> int:
        return slabs * sum(
            cdiv(counts[kind], slabs) * min(cdiv(usual_len, sizes[kind]), window_blocks(kind, sizes[kind], 1))
            for kind in counts
        )

    # why: of equal costs the larger group wins (fewer block tables); a saving under a tenth is not worth more tables.
    best = max(counts.values())
    for slabs in range(best - 1, 0, -1):
        if cost(slabs) < 0.9 * cost(best):
            best = slabs
    return best


def window_blocks(kind: KVKind, block_size: int, num_query: int) -> int:
    """Most blocks that a sequence needs at once to compute `num_query` tokens; without a window there is no bound."""
    if isinstance(kind, SlidingKV):
        return cdiv(kind.window - 1 + num_query - 1, block_size) + 1
    return 1 << 62


def blocks_needed(plan: KVPlan, num_tokens: int, num_query: int = 1) -> int:
    """Blocks that one sequence of `num_tokens` tokens holds, when it computes `num_query` of them at a time."""
    return sum(
        min(cdiv(num_tokens, group.block_size), window_blocks(group.kind, group.block_size, num_query))
        for group in plan.groups
    )


def max_tokens_that_fit(plan: KVPlan, num_sequences: int = 1, num_query: int = 1) -> int:
    """The longest length that `num_sequences` sequences can all reach at once; 0 if not even one token."""
    share = (plan.num_blocks - 1) // num_sequences
    step = lcm(*(group.block_size for group in plan.groups))
    if all(isinstance(group.kind, SlidingKV) for group in plan.groups) and blocks_needed(plan, 1 << 40) <= share:
        return 1 << 40
    return largest(0, (share + 1) * step, lambda length: blocks_needed(plan, length, num_query) <= share)


def bytes_needed(plan: KVPlan, num_tokens: int, num_sequences: int = 1) -> int:
    """Bytes of a pool in which `num_sequences` sequences of `num_tokens` tokens fit, the null block included."""
    blocks = blocks_needed(plan, num_tokens) * num_sequences + 1
    return replace(plan, num_blocks=blocks).total_bytes


def bytes_per_token(plan: KVPlan) -> float:
    """Bytes that one more token of a long sequence takes: the groups without a window."""
    per_block = plan.num_slabs * plan.block_bytes
    return sum(per_block / group.block_size for group in plan.groups if not isinstance(group.kind, SlidingKV))
