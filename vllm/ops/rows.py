"""The two ends of a step that live on the device: inputs from rows, and tokens from logits back into rows.

    rows_N ─▶ gather_rows ─▶ (embed .. head) ─▶ pick ─▶ tokens; last[row] = token, computed[row] = its position

So a decode step needs nothing from the host but which rows take part. R rows, one more that idle lines use (it stays
at position 0 and its tables name the null block only), N lines, G KV groups, B blocks of a table, V vocabulary,
F forbidden ids. Does not know: where the memory of the rows is, options beyond temperature and min_tokens.
Called by: worker.
"""

from dataclasses import dataclass

import torch

from vllm.ops.draw import draw, noise_keys
from vllm.ops.table import Tol, op

FORBIDDEN = 8
"""Most ids that a row may forbid before it has min_tokens."""
CASES = ((1, 1000), (3, 128256), (16, 4099))
"""(N, V)"""


@dataclass(slots=True)
class RowState:
    """What is true of each row, on the device. The last entry of every tensor is the idle row's."""

    last: torch.Tensor
    """[R + 1] int32: the newest token."""
    computed: torch.Tensor
    """[R + 1] int32: tokens whose keys are in the cache; the position of the newest token."""
    temperature: torch.Tensor
    """[R + 1] float32; 0 is greedy."""
    seed: torch.Tensor
    """[R + 1] int64"""
    free_at: torch.Tensor
    """[R + 1] int32: lines shorter than this may not choose a forbidden id."""
    forbidden: torch.Tensor
    """[R + 1, F] int32; a list that is shorter repeats its first id, an empty one belongs to free_at 0."""
    tables: list[torch.Tensor]
    """Per KV group [R + 1, B] int32: block ids from position 0 on."""
    block_sizes: list[int]


@dataclass(slots=True)
class Gathered:
    """Inputs of a step in which every line is one token."""

    token_ids: torch.Tensor
    """[N] int64"""
    positions: torch.Tensor
    """[N] int64"""
    seq_lens: torch.Tensor
    """[N] int32: position + 1."""
    slots: list[torch.Tensor]
    """Per group [N] int64."""
    tables: list[torch.Tensor]
    """Per group [N, B] int32."""


@op(tol=Tol(f32=0.0))
def gather_rows(rows_N: torch.Tensor, state: RowState) -> Gathered:
    """Token, position, slots and block tables of the next token of rows [N] int32."""
    rows = rows_N.long()
    positions = state.computed[rows].long()
    slots, tables = [], []
    for table, size in zip(state.tables, state.block_sizes, strict=True):
        mine = table[rows]
        block = positions // size
        slots.append(mine.gather(1, block[:, None])[:, 0].long() * size + positions - block * size)
        tables.append(mine)
    return Gathered(state.last[rows].long(), positions, (positions + 1).int(), slots, tables)


@op(tol=Tol(f32=0.0), cases=CASES)
def pick(logits_NV: torch.Tensor, rows_N: torch.Tensor, lens_N: torch.Tensor, state: RowState) -> torch.Tensor:
    """[N] int64 tokens for lines whose rows have `lens_N` (int32) tokens, chosen from float32 logits.

    Greedy where the row's temperature is 0, else drawn over logits / temperature (`ops.draw`). Lines of rows that are
    not the idle one change them: last = token, computed = len. May overwrite the logits.
    """
    rows = rows_N.long()
    ids = state.forbidden[rows].long()
    held = (lens_N < state.free_at[rows])[:, None]
    logits_NV.scatter_(1, ids, torch.where(held, float("-inf"), logits_NV.gather(1, ids)))
    temperature = state.temperature[rows]
    tokens = logits_NV.argmax(-1)
    scaled = logits_NV / torch.where(temperature > 0, temperature, 1.0)[:, None]
    tokens = torch.where(temperature > 0, draw(scaled, noise_keys(state.seed[rows], lens_N.long())), tokens)
    real = rows < state.last.shape[0] - 1
    state.last[rows] = torch.where(real, tokens.int(), 0)
    state.computed[rows] = torch.where(real, lens_N, 0)
    return tokens
