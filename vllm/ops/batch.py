"""The gathered inputs of one step, as ops and layers read them. The worker fills it; they only read.

    T tokens of the step, S sequences (rows) in it, B blocks of the longest block table, P tokens per block.

Tokens of a sequence lie together, in order; sequence s owns tokens query_start[s] .. query_start[s + 1].
Invariant: everything the device reads is a tensor; the plain integers are upper bounds that pick a kernel.
"""

from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class GroupBatch:
    """What differs between KV groups: where tokens are written and which blocks are read."""

    slot_mapping: torch.Tensor
    """[T] int64: block id * P + offset; null block 0 for tokens that must not be kept."""
    block_table: torch.Tensor
    """[S, B] int32: block ids from position 0 on; NULL_BLOCK below a sliding window."""
    block_size: int


@dataclass(slots=True)
class Batch:
    """Inputs of one forward pass."""

    token_ids: torch.Tensor
    """[T] int64"""
    positions: torch.Tensor
    """[T] int64: position of each token in its sequence."""
    query_start: torch.Tensor
    """[S + 1] int32: first token of each sequence; the last entry is T."""
    seq_lens: torch.Tensor
    """[S] int32: context_len + query_len: keys that exist after this step's writes."""
    groups: list[GroupBatch]
    num_tokens: int
    num_seqs: int
    max_query_len: int
    max_seq_len: int
    query_lens: list[int]
    """Host copy of each sequence's query_len (CPU kernels and eager paths read it; CUDA graphs never do)."""
    host_seq_lens: list[int]
    """Host copy of seq_lens (an upper bound while running ahead)."""
    scratch: dict[object, object] = field(default_factory=dict)
    """What a layer or kernel computed once for this step (cosines, work lists), by a key of its own."""
