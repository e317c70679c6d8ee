"""The two ends of a step that live on the device: inputs from rows, and tokens from logits back into rows.

    rows_N ─▶ gather_rows ─▶ (embed .. head) ─▶ pick ─▶ tokens; last[row] = token, computed[row] = its position

So a decode step needs nothing from the host but which rows take part. R rows, one more that idle lines use (it stays
at position 0 and its tables name the null block only), N lines, G KV groups, B blocks of a table, V vocabulary,
F forbidden ids, C and D slots of rows with penalties and with numbers to add. `pick` knows temperature and min_tokens,
`pick_any` all options. Does not know: where the memory of the rows is. Called by: worker.
"""

import math
from dataclasses import dataclass

import torch

from vllm.ops.draw import draw, noise_keys
from vllm.ops.table import Tol, op

FORBIDDEN = 8
"""Most ids that a row may forbid before it has min_tokens."""
PLACES = 4
"""Places of a row in `RowState.told`."""
CASES = ((1, 1000), (3, 128256), (16, 4099))
"""(N, V)"""


SEEN = 1 << 14
"""Of a count: the prompt holds the token. The rest says how often the output does."""


@dataclass(slots=True)
class RowOptions:
    """What rows ask for beyond temperature and min_tokens. Slot 0 says nothing and belongs to rows that ask nothing."""

    top_k: torch.Tensor
    """[R + 1] int32; 0: all."""
    top_p: torch.Tensor
    """[R + 1] float32; 1: all."""
    min_p: torch.Tensor
    """[R + 1] float32; 0: all."""
    presence: torch.Tensor
    """[R + 1] float32"""
    frequency: torch.Tensor
    """[R + 1] float32"""
    repetition: torch.Tensor
    """[R + 1] float32; read for rows with a slot of counts."""
    count_slot: torch.Tensor
    """[R + 1] int32"""
    bias_slot: torch.Tensor
    """[R + 1] int32"""
    counts: torch.Tensor
    """[C + 1, V] int16: occurrences in the output, and SEEN."""
    bias: torch.Tensor
    """[D + 1, V] float32, added to logits first; -inf: forbidden."""


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
    options: RowOptions | None = None
    told: torch.Tensor | None = None
    """[R + 1, PLACES] int32, memory that the host reads too: `pick` writes a token at its position modulo PLACES."""


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
    """[N] int64 tokens for lines whose rows have `lens_N` (int32) tokens, chosen from logits taken as float32.

    Greedy where the row's temperature is 0, else drawn over logits / temperature (`ops.draw`). Lines of rows that are
    not the idle one change them: last = token, computed = len. May overwrite the logits.
    """
    rows, logits_NV = rows_N.long(), logits_NV.float()
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
    if state.told is not None:
        state.told[rows[real], (lens_N % PLACES).long()[real]] = tokens[real].int()
    return tokens


@op(tol=Tol(f32=0.0), cases=CASES)
def pick_any(logits_NV: torch.Tensor, rows_N: torch.Tensor, lens_N: torch.Tensor, state: RowState) -> torch.Tensor:
    """As `pick`, from float32 logits and with all options of `state.options`: in this order bias, min_tokens,
    repetition, frequency and presence penalties, temperature, then (not for greedy lines) min_p, top_k and top_p.

    Tokens drawn are counted in the row's slot. May overwrite the logits.
    """
    o, rows = state.options, rows_N.long()
    assert o is not None, "rows without options are for `pick`"
    slots = o.count_slot[rows].long()
    logits_NV += o.bias[o.bias_slot[rows].long()]
    ids, held = state.forbidden[rows].long(), (lens_N < state.free_at[rows])[:, None]
    logits_NV.scatter_(1, ids, torch.where(held, float("-inf"), logits_NV.gather(1, ids)))
    for n in slots.nonzero()[:, 0].tolist():
        r, counts = rows[n], o.counts[slots[n]].int()
        _penalize(logits_NV[n], counts, o.repetition[r], o.frequency[r], o.presence[r])
    for n in (state.temperature[rows] > 0).nonzero()[:, 0].tolist():
        r = rows[n]
        # why: `pick` divides, so the cut is made on the quotients and put on the dividends
        line = logits_NV[n] / state.temperature[r]
        keep = _kept(line, int(o.top_k[r]), float(o.top_p[r]), float(o.min_p[r]))
        logits_NV[n].masked_fill_(~keep, float("-inf"))
    tokens: torch.Tensor = pick(logits_NV, rows_N, lens_N, state)
    o.counts[slots, tokens] += (slots > 0).to(o.counts.dtype)
    return tokens


def _penalize(
    line_V: torch.Tensor,
    counts_V: torch.Tensor,
    repetition: torch.Tensor,
    frequency: torch.Tensor,
    presence: torch.Tensor,
) -> None:
    output = counts_V & (SEEN - 1)
    line_V.copy_(torch.where(counts_V > 0, torch.where(line_V > 0, line_V / repetition, line_V * repetition), line_V))
    line_V -= torch.where(output > 0, frequency * output.float() + presence, 0.0)


def _kept(line_V: torch.Tensor, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """[V] bool: what the three cuts leave; equal logits at an edge stay together."""
    best = line_V.max()
    bound = best + math.log(min_p) if min_p > 0 else line_V.new_tensor(float("-inf"))
    if 0 < top_k < line_V.shape[0]:
        bound = torch.maximum(bound, line_V.topk(top_k).values[-1])
    keep = line_V >= bound
    if top_p < 1:
        falling, _ = torch.where(keep, line_V, float("-inf")).sort(descending=True)
        mass = (falling - best).double().exp()
        above = mass.cumsum(0) - mass
        inside = above < top_p * mass.sum()
        inside[0] = True
        keep &= line_V >= falling[inside][-1]
    return keep
