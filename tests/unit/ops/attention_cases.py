"""Ragged batches over a paged cache, filled with random keys and values: for the reference and for every kernel."""

from dataclasses import dataclass

import torch

from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch, GroupBatch

# (heads, kv heads, head size, value size, window, softcap, sinks, block size)
SHAPES = [
    (4, 4, 64, 64, None, None, False, 16),
    (8, 2, 64, 64, None, None, False, 64),
    (16, 8, 128, 128, None, None, False, 64),
    (8, 1, 32, 48, None, 30.0, False, 32),
    (4, 2, 64, 64, 40, None, True, 16),
    (6, 2, 80, 80, 100, 50.0, False, 64),
]
# query_len, seq_len of each sequence
RAGGED = [
    [(1, 1)],
    [(7, 7), (1, 33), (5, 70), (1, 1)],
    [(1, 200), (1, 64), (1, 65), (1, 5)],
    [(300, 300), (64, 129), (1, 17)],
]


@dataclass
class Case:
    """A filled cache, a step's inputs, and every sequence's whole keys and values."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    slab: torch.Tensor
    batch: Batch
    group: GroupBatch
    shape: AttentionShape
    sinks: torch.Tensor | None
    keys: list[torch.Tensor]
    values: list[torch.Tensor]


def make_case(shape, lens, attention_kernel, dtype=torch.float32, seed=0, device="cpu") -> Case:
    """Build a case; context tokens are written through the kernel itself, block by block."""
    heads, kv, dim, v_dim, window, softcap, sinks, block_size = shape
    g = torch.Generator().manual_seed(seed)
    made = AttentionShape(heads, kv, dim, v_dim, dim**-0.5, window, softcap)
    num_blocks = 1 + sum(-(-length // block_size) for _, length in lens) + 3
    order = (torch.randperm(num_blocks - 1, generator=g) + 1).tolist()
    itemsize = dtype.itemsize
    slab = torch.zeros(num_blocks, kv * (dim + v_dim) * block_size * itemsize + 128, dtype=torch.uint8, device=device)
    tables, keys, values, slots, positions = [], [], [], [], []
    for query_len, length in lens:
        blocks = [order.pop() for _ in range(-(-length // block_size))]
        keys.append(torch.randn(length, kv, dim, generator=g).to(dtype))
        values.append(torch.randn(length, kv, v_dim, generator=g).to(dtype))
        slots.append([blocks[p // block_size] * block_size + p % block_size for p in range(length)])
        lowest = 0 if window is None else max(0, length - query_len - window + 1)
        tables.append([0 if (b + 1) * block_size <= lowest else i for b, i in enumerate(blocks)])
        positions.extend(range(length - query_len, length))
    width = max(map(len, tables))
    table = torch.tensor([t + [0] * (width - len(t)) for t in tables], dtype=torch.int32)
    cache = attention_kernel.helpers["layout"](slab, dtype, block_size, made)
    total = sum(n for n, _ in lens)
    q = torch.randn(total, heads, dim, generator=g).to(dtype)
    starts = [0]
    for n, _ in lens:
        starts.append(starts[-1] + n)

    def group(which) -> GroupBatch:
        flat = [slot for s, (n, length) in enumerate(lens) for slot in slots[s][which(n, length)]]
        return GroupBatch(torch.tensor(flat, dtype=torch.int64, device=device), table.to(device), block_size)

    # why: the context is put in place by a step whose queries are thrown away
    before = group(lambda n, length: slice(0, length - n))
    if before.slot_mapping.numel():
        ctx = [(length - n, length - n) for n, length in lens if length > n]
        rows = [s for s, (n, length) in enumerate(lens) if length > n]
        fill = _batch(ctx, device)
        whole = GroupBatch(before.slot_mapping, _whole(slots, rows, ctx, block_size).to(device), block_size)
        k = torch.cat([keys[s][: length - n] for s, (n, length) in enumerate(lens)]).to(device)
        v = torch.cat([values[s][: length - n] for s, (n, length) in enumerate(lens)]).to(device)
        nothing = torch.zeros(len(k), heads, dim, dtype=dtype, device=device)
        attention_kernel.run(nothing, k, v, cache, fill, whole, made)
    return Case(
        q=q.to(device),
        k=torch.cat([keys[s][length - n :] for s, (n, length) in enumerate(lens)]).to(device),
        v=torch.cat([values[s][length - n :] for s, (n, length) in enumerate(lens)]).to(device),
        slab=cache,
        batch=_batch(lens, device),
        group=group(lambda n, length: slice(length - n, length)),
        shape=made,
        sinks=torch.randn(heads, generator=g).to(device) if sinks else None,
        keys=keys,
        values=values,
    )


def _whole(slots, rows, lens, block_size):
    width = max(-(-length // block_size) for _, length in lens)
    table = torch.zeros(len(rows), width, dtype=torch.int32)
    for i, (s, (_, length)) in enumerate(zip(rows, lens, strict=True)):
        for b in range(-(-length // block_size)):
            table[i, b] = slots[s][b * block_size] // block_size
    return table


def _batch(lens, device) -> Batch:
    query = [n for n, _ in lens]
    starts = torch.tensor([0, *torch.tensor(query).cumsum(0).tolist()], dtype=torch.int32)
    positions = torch.cat([torch.arange(length - n, length) for n, length in lens])
    return Batch(
        token_ids=torch.zeros(sum(query), dtype=torch.int64, device=device),
        positions=positions.to(device),
        query_start=starts.to(device),
        seq_lens=torch.tensor([length for _, length in lens], dtype=torch.int32, device=device),
        groups=[],
        num_tokens=sum(query),
        num_seqs=len(lens),
        max_query_len=max(query),
        max_seq_len=max(length for _, length in lens),
        query_lens=query,
        host_seq_lens=[length for _, length in lens],
    )
