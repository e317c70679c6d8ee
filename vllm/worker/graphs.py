"""Steps of one token per row, as one device graph per number of lines.

    lines ─▶ gather_rows ─▶ model ─▶ logits ─┬─▶ pick ─▶ tokens       nobody asks for more than temperature
                                             ├─▶ pick_any ─▶ tokens   somebody does
                                             └─▶ (logits)             somebody needs to see them first, then
                                (the second piece)   (logits) ─▶ pick or pick_any ─▶ tokens

Numbers of lines are rounded up to a bucket, idle lines fill it. A bucket is recorded when it is first needed. Where
graphs are off the same function runs as it is. Does not know: plans, who the rows belong to. Called by: ahead.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.rows import PLACES
from vllm.ops.table import Kernels
from vllm.platforms.base import platform_of
from vllm.util.clock import SYSTEM
from vllm.util.log import get_logger
from vllm.worker.board import Board
from vllm.worker.resident import Resident

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512)
log = get_logger(__name__)


class End(Enum):
    """Where a recorded step ends, and the second piece of one that ended in `LOGITS`."""

    PICK = "pick"
    PICK_ANY = "pick_any"
    LOGITS = "logits"
    THEN_PICK = "then pick"
    THEN_PICK_ANY = "then pick_any"


class Decodes:
    """Runs decode steps, recorded or not."""

    def __init__(
        self, model: Model, ops: Kernels, resident: Resident, device: torch.device, max_len: int, record: bool
    ) -> None:
        self._model, self._ops, self._resident, self._device = model, ops, resident, device
        self._max_len, self._record = max_len, record
        self._query_start = torch.arange(BUCKETS[-1] + 1, dtype=torch.int32, device=device)
        self._idle = torch.full((BUCKETS[-1],), resident.idle, dtype=torch.int32, device=device)
        most = next((b for b in BUCKETS if b >= resident.idle), BUCKETS[-1])
        # why: the logits of every graph would stay, one beside the other
        self._logits = torch.empty(most, model.vocab, device=device) if record and device.type != "cpu" else None
        self._lens = torch.ones(most, dtype=torch.int32, device=device)
        self._graphs: dict[tuple[int, End], tuple[Callable[[], None], torch.Tensor]] = {}
        platform, pick = platform_of(device), ops.names()["pick"]
        # why: what the reference does on a device needs its tensors there
        reaches = device.type == "cpu" or pick != "reference"
        told = platform.shared((resident.idle + 1, PLACES), -1) if reaches else None
        self.board = None if told is None else Board(told, platform, device.index or 0)
        """Where steps that end in `PICK` also tell their tokens."""
        self._telling = replace(resident.state, told=told)

    @property
    def buckets(self) -> list[int]:
        """All numbers of lines that the rows may need."""
        most = self.bucket(self._resident.idle) or BUCKETS[-1]
        return [b for b in BUCKETS if b <= most]

    def bucket(self, num: int) -> int | None:
        """Lines of the step that `num` rows take; None when they are too many."""
        if not self._record:
            return num if num <= BUCKETS[-1] else None
        return next((b for b in BUCKETS if b >= num), None)

    def run(self, bucket: int, end: End, lens: list[int] | None = None) -> torch.Tensor:
        """Tokens [bucket] of the resident lines, which the rows have taken over, or float32 logits [bucket, V].

        `lens` are the tokens of each row, the new one counted. A second piece, where `has_second`, knows them from the
        run before it, and chooses from its logits, which it may change. The result holds until the next run.
        """
        found = None
        if self._record:
            found = self._graphs.get((bucket, end)) or self._capture(bucket, end)
        if found is None:
            return self._step(self._resident.lines[:bucket], end, lens or [])
        found[0]()
        return found[1]

    @property
    def has_second(self) -> bool:
        """Whether logits stay where the second piece finds them."""
        return self._record and self._logits is not None

    def prepare(self, bucket: int) -> float | None:
        """Record the step of this bucket with idle lines, and time it; None where that has been done or cannot be."""
        if not self._record or (bucket, End.PICK) in self._graphs or self._capture(bucket, End.PICK) is None:
            return None
        platform, index = platform_of(self._device), self._device.index or 0
        self._resident.name(np.zeros(0, np.int64), bucket)
        self._resident.flush()
        platform.synchronize(index)
        began = SYSTEM.monotonic()
        self._graphs[bucket, End.PICK][0]()
        platform.synchronize(index)
        return SYSTEM.monotonic() - began

    def _capture(self, bucket: int, end: End) -> tuple[Callable[[], None], torch.Tensor] | None:
        lines, idle = self._resident.lines[:bucket], self._idle[:bucket]
        # why: kernels that may be recorded read lengths on the device
        lens = [self._max_len] * bucket
        try:
            made = platform_of(self._device).capture(
                lambda: self._step(idle, end, lens), lambda: self._step(lines, end, lens), self._device.index or 0
            )
        except RuntimeError as error:
            log.warning("decode steps run without graphs, which is slower: %s", error)
            self._record = False
            return None
        self._graphs[bucket, end] = made
        return made

    def _step(self, lines: torch.Tensor, end: End, lens: list[int]) -> torch.Tensor:
        state, num = self._resident.state, lines.shape[0]
        if end in (End.THEN_PICK, End.THEN_PICK_ANY):
            assert self._logits is not None, "no logits are kept"
            choose = self._ops.pick if end is End.THEN_PICK else self._ops.pick_any
            return choose(self._logits[:num], lines, self._lens[:num], state)  # type: ignore[no-any-return]
        g = self._ops.gather_rows(lines, state)
        if self._device.type == "cpu":  # why: a "recorded" step is run again there, by kernels that read this list
            lens = g.seq_lens.tolist()
        batch = Batch(
            token_ids=g.token_ids,
            positions=g.positions,
            query_start=self._query_start[: num + 1],
            seq_lens=g.seq_lens,
            groups=[GroupBatch(*three) for three in zip(g.slots, g.tables, state.block_sizes, strict=True)],
            num_tokens=num,
            num_seqs=num,
            max_query_len=1,
            max_seq_len=self._max_len,
            query_lens=[1] * num,
            host_seq_lens=lens,
        )
        logits = self._model.logits(self._model(batch), wide=end is End.PICK_ANY)
        if end is End.LOGITS:
            if self._logits is None:
                return logits.float()
            self._lens[:num].copy_(g.seq_lens)
            return self._logits[:num].copy_(logits)
        if end is End.PICK:
            return self._ops.pick(logits, lines, g.seq_lens, self._telling)  # type: ignore[no-any-return]
        return self._ops.pick_any(logits, lines, g.seq_lens, state)  # type: ignore[no-any-return]
