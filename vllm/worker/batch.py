"""From rows and a plan to the inputs of one forward pass. All vectorised: hundreds of decodes cost a fraction of a ms.

    rows      [r0 r1 r1 r1]      tokens of a row lie together, in the order of the plan
    positions [ 7  0  1  2]      from computed[row] on
    slots     table[row, position // P] * P + position % P

Does not know: layers, sampling. Called by: runner, ahead.
"""

import numpy as np
import torch

from vllm.ops.batch import Batch, GroupBatch
from vllm.platforms.base import platform_of
from vllm.util.arith import cdiv
from vllm.worker.rows import Rows


def gather_here(rows: Rows, planned: np.ndarray, num_query: np.ndarray) -> list[np.ndarray]:
    """Token ids, positions, first token of each sequence, lengths, and slots and block tables of every group: of
    `planned` rows [S] with `num_query` tokens each (all >= 1)."""
    context = rows.computed[planned]
    seq_lens = context + num_query
    starts = np.zeros(len(planned) + 1, np.int32)
    np.cumsum(num_query, out=starts[1:])
    total, longest = int(starts[-1]), int(num_query.max())
    if longest == 1:
        row_of, positions = planned, context
    else:
        row_of = np.repeat(planned, num_query)
        positions = np.arange(total) - np.repeat(starts[:-1] - context, num_query)
    if rows.any_done:
        positions = np.minimum(positions, rows.max_model_len - 1)
    max_seq_len = int(seq_lens.max())
    arrays = [rows.tokens[row_of, positions].astype(np.int64), positions, starts, seq_lens.astype(np.int32)]
    for group in range(len(rows.tables)):
        arrays += _group(rows, group, planned, row_of, positions, max_seq_len)
    return arrays


def gather(rows: Rows, planned: np.ndarray, num_query: np.ndarray, device: torch.device) -> Batch:
    """The batch of these rows and numbers of tokens."""
    arrays = gather_here(rows, planned, num_query)
    seq_lens = arrays[3]
    token_ids, at, query_start, lens, *groups = send_all(arrays, device)
    return Batch(
        token_ids=token_ids,
        positions=at,
        query_start=query_start,
        seq_lens=lens,
        groups=[GroupBatch(*groups[2 * g : 2 * g + 2], size) for g, size in enumerate(rows.block_sizes)],
        num_tokens=len(arrays[0]),
        num_seqs=len(planned),
        max_query_len=int(num_query.max()),
        max_seq_len=int(seq_lens.max()),
        query_lens=num_query.tolist(),
        host_seq_lens=seq_lens.tolist(),
    )


def idle_batch(rows: Rows, num_query: np.ndarray, device: torch.device) -> Batch:
    """As many sequences of so many tokens, of which nothing is read or kept."""
    starts = np.zeros(len(num_query) + 1, np.int32)
    np.cumsum(num_query, out=starts[1:])
    total, most = int(starts[-1]), int(num_query.max())
    positions = np.arange(total) - np.repeat(starts[:-1], num_query)
    tables = [np.zeros((len(num_query), cdiv(most, size)), np.int32) for size in rows.block_sizes]
    ids, at, query_start, lens, *there = send_all(
        [np.zeros(total, np.int64), positions, starts, num_query.astype(np.int32), *tables], device
    )
    return Batch(
        token_ids=ids,
        positions=at,
        query_start=query_start,
        seq_lens=lens,
        groups=[GroupBatch(ids, table, size) for table, size in zip(there, rows.block_sizes, strict=True)],
        num_tokens=total,
        num_seqs=len(num_query),
        max_query_len=most,
        max_seq_len=most,
        query_lens=num_query.tolist(),
        host_seq_lens=num_query.tolist(),
    )


def _group(
    rows: Rows, group: int, planned: np.ndarray, row_of: np.ndarray, positions: np.ndarray, max_seq_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """(slots, block tables) of a KV group."""
    size, table = rows.block_sizes[group], rows.tables[group]
    block = positions // size
    slots = table[row_of, block].astype(np.int64) * size + (positions - block * size)
    if rows.any_done:
        slots[rows.done[row_of]] = 0
    blocks = min(cdiv(max_seq_len, size), table.shape[1])
    return slots, table[planned, :blocks]


def send_all(arrays: list[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """The arrays on the device, in one copy per dtype; each starts at a multiple of 16 bytes, as kernels like it.

    On a processor they are the arrays themselves.
    """
    if device.type == "cpu":
        return [torch.from_numpy(a) for a in arrays]
    platform, out = platform_of(device), [torch.empty(0)] * len(arrays)
    for dtype in {a.dtype for a in arrays}:
        mine = [i for i, a in enumerate(arrays) if a.dtype == dtype]
        step = 16 // dtype.itemsize
        starts = np.cumsum([0] + [-(-arrays[i].size // step) * step for i in mine])
        flat = np.zeros(int(starts[-1]), dtype)
        for i, start in zip(mine, starts[:-1], strict=True):
            flat[start : start + arrays[i].size] = arrays[i].ravel()
        there = platform.send(torch.from_numpy(flat), device.index or 0)
        for i, start in zip(mine, starts[:-1], strict=True):
            out[i] = there[start : start + arrays[i].size].view(arrays[i].shape)
    return out
