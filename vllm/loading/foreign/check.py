"""A network that nobody here described is tried once, with its real weights, before it may serve: a sequence must come
out the same alone and whole, and in pieces beside another one. What keeps state elsewhere than in the cache fails.

    whole   A A A A A A
    pieces  A A A A B B B  then  B B A A

Does not know which networks fail, or why. Called by: build.
"""

from __future__ import annotations

import torch

from vllm.layers.foreign import ForeignModel
from vllm.loading.foreign.config import refused
from vllm.ops.batch import Batch, GroupBatch
from vllm.protocol.kv import KVPlan
from vllm.util.arith import cdiv
from vllm.util.log import get_logger

_log = get_logger(__name__)
_LENGTH, _CUT = 6, 4
# why: half precision rounds, and may even send a token to another expert; lost state changes far more than this
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}


@torch.inference_mode()
def check_isolation(model: ForeignModel, name: str, kv_plan: KVPlan, device: torch.device) -> None:
    """RefusedError when a sequence depends on its neighbours or on how it is cut. Writes to blocks that nobody owns."""
    tables = _tables(kv_plan)
    if tables[-1][-1][-1] >= kv_plan.num_blocks:
        _log.debug("the pool of %d blocks is too small to try %s", kv_plan.num_blocks, name)
        return

    def run(*asks: tuple[int, int, int]) -> torch.Tensor:
        return model(_batch(asks, model.vocab, kv_plan, tables, device)).float()

    whole = run((0, 0, _LENGTH))
    first = run((0, 0, _CUT), (1, 0, 3))
    second = run((1, 3, 5), (0, _CUT, _LENGTH))
    pieces = torch.cat((first[:_CUT], second[2:]))
    if not whole.isfinite().all():
        _log.warning("%s gives values that are not finite, so it could not be tried", name)
        return
    error = float((pieces - whole).norm() / whole.norm().clamp_min(1e-30))
    if not error <= _TOLERANCE[model.dtype]:
        raise refused(
            f"{name} gives other results when a prompt is cut or shares a batch (they differ by {error:.0%}): it keeps "
            f"state that is not in the paged cache, so it cannot be served."
        )


def _tables(kv_plan: KVPlan) -> list[list[list[int]]]:
    """group -> sequence -> block ids. Groups share slabs, so no block serves two of them."""
    tables, free = [], 1
    for group in kv_plan.groups:
        per = cdiv(_LENGTH, group.block_size)
        tables.append([list(range(free + seq * per, free + (seq + 1) * per)) for seq in (0, 1)])
        free += 2 * per
    return tables


def _batch(
    asks: tuple[tuple[int, int, int], ...],
    vocab: int,
    kv_plan: KVPlan,
    tables: list[list[list[int]]],
    device: torch.device,
) -> Batch:
    """Positions start..end of sequences: one batch of (sequence, start, end)."""
    places = [(seq, p) for seq, start, end in asks for p in range(start, end)]
    lens = [end - start for _, start, end in asks]
    starts = [sum(lens[:i]) for i in range(len(lens) + 1)]
    groups = []
    for group, ids in zip(kv_plan.groups, tables, strict=True):
        size = group.block_size
        slots = [ids[seq][p // size] * size + p % size for seq, p in places]
        table = [ids[seq] for seq, _, _ in asks]
        groups.append(
            GroupBatch(torch.tensor(slots, device=device), torch.tensor(table, dtype=torch.int32, device=device), size)
        )
    seq_lens = [end for _, _, end in asks]
    tokens = [(3 + 5 * p + 7 * seq) % vocab for seq, p in places]
    return Batch(
        token_ids=torch.tensor(tokens, device=device),
        positions=torch.tensor([p for _, p in places], device=device),
        query_start=torch.tensor(starts, dtype=torch.int32, device=device),
        seq_lens=torch.tensor(seq_lens, dtype=torch.int32, device=device),
        groups=groups,
        num_tokens=len(places),
        num_seqs=len(asks),
        max_query_len=max(lens),
        max_seq_len=max(seq_lens),
        query_lens=lens,
        host_seq_lens=seq_lens,
    )
