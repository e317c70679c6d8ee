"""Steps with some chunks of prompts beside decodes, recorded by size: to launch their kernels one by one takes the host
longer than the kernels take.

    tokens     | decodes | idle | chunks one behind the other | idle |         each part is filled up to its size
    sequences  | decodes | idle | chunks | empty ones | one of idle tokens |

Idle tokens read and write the null block. All recordings read the same two arenas and leave hidden states in the same
memory, so one more of them takes none. Does not know: plans, sampling. Called by: ahead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.batch import Batch, GroupBatch
from vllm.platforms.base import platform_of
from vllm.protocol.sizes import DECODES, TOTALS, lines_for
from vllm.util.clock import SYSTEM
from vllm.util.log import get_logger
from vllm.worker.batch import gather_here
from vllm.worker.resident import Resident
from vllm.worker.rows import Rows

CHUNKS = 8
"""Most chunks in a step; a ninth sequence is that of the idle tokens."""
log = get_logger(__name__)


@dataclass(slots=True)
class Size:
    """How large a step is, and what it is filled up to."""

    decodes: int
    chunks: int
    tokens: int
    """Of the chunks."""
    lines: int
    """Of decodes, idle ones counted."""
    total: int
    """Tokens, idle ones counted."""


class _Inputs:
    """What the recorded step of one size reads: parts of the two arenas."""

    def __init__(self, lines: int, total: int, longs: torch.Tensor, ints: torch.Tensor, groups: int) -> None:
        self.total, self.seqs = total, lines + CHUNKS + 1
        self.longs = longs[: (2 + groups) * total].view(2 + groups, total)
        sizes = [self.seqs + 1, self.seqs, self.seqs]
        self.starts = np.cumsum([0, *(_even(size) for size in sizes)])
        self.ints = ints[: int(self.starts[-1])]
        self.query_start, self.lens, self.rows = (
            self.ints[a : a + n] for a, n in zip(self.starts[:-1], sizes, strict=True)
        )


def _even(size: int) -> int:
    return -(-size // 4) * 4  # why: kernels like multiples of 16 bytes


class Mixed:
    """Runs such steps."""

    def __init__(self, model: Model, rows: Rows, resident: Resident, device: torch.device, max_len: int) -> None:
        self._model, self._rows, self._resident, self._device, self._max_len = model, rows, resident, device, max_len
        # why: the idle tokens of a step are a sequence, which is no longer than others
        self._totals = [n for n in TOTALS if n <= max_len]
        self._decodes = [n for n in DECODES if n <= (lines_for(rows.max_rows) or DECODES[-1])]
        most, seqs = max(self._totals, default=0), self._decodes[-1] + CHUNKS + 1
        self._longs = torch.zeros((2 + len(rows.tables)) * most, dtype=torch.int64, device=device)
        self._ints = torch.zeros(3 * _even(seqs + 1), dtype=torch.int32, device=device)
        self._hidden = torch.zeros(most, model.hidden_size, dtype=model.dtype, device=device)
        self._inputs: dict[tuple[int, int], _Inputs] = {}
        self._made: dict[tuple[int, int], tuple[Callable[[], None], torch.Tensor]] = {}
        self._is_on = True

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Lines and totals of all steps that may be recorded, in the order in which they are likely to be needed."""
        return [(lines, total) for lines in self._decodes for total in self._totals[::-1] if total > lines]

    def size(self, num_query: np.ndarray) -> Size | None:
        """The size of a step with these numbers of tokens; None for one that is not recorded."""
        longer = num_query > 1
        decodes = int(longer.argmax())
        chunks, tokens = len(num_query) - decodes, int(num_query.sum()) - decodes
        lines = lines_for(decodes)
        if not self._is_on or lines is None or chunks > CHUNKS or not longer[decodes:].all():
            return None
        total = next((n for n in self._totals if lines + tokens <= n), None)
        return None if total is None else Size(decodes, chunks, tokens, lines, total)

    def run(
        self, size: Size, planned: np.ndarray, num_query: np.ndarray, fill: Callable[[torch.Tensor], None]
    ) -> torch.Tensor | None:
        """Hidden states of the step's tokens, which hold until the next run; None where it cannot be recorded.

        `fill` puts tokens that only the device knows among the ids it is given.
        """
        key = size.lines, size.total
        x = self._inputs_of(key)
        self._load(x, size, planned, num_query)
        fill(x.longs[0])
        made = self._made.get(key) or self._capture(key, x)
        if made is None:
            return None
        made[0]()
        return torch.cat((made[1][: size.decodes], made[1][size.lines : size.lines + size.tokens]))

    def prepare(self, lines: int, total: int) -> float | None:
        """Record this size with idle tokens alone, and time it; None where that has been done or cannot be."""
        key = lines, total
        if not self._is_on or key in self._made:
            return None
        x, nobody = self._inputs_of(key), np.zeros(0, np.int64)
        self._load(x, Size(0, 0, 0, lines, total), nobody, nobody)
        made, platform, index = self._capture(key, x), platform_of(self._device), self._device.index or 0
        if made is None:
            return None
        platform.synchronize(index)
        began = SYSTEM.monotonic()
        made[0]()
        platform.synchronize(index)
        return SYSTEM.monotonic() - began

    def _inputs_of(self, key: tuple[int, int]) -> _Inputs:
        x = self._inputs.get(key)
        if x is None:
            x = self._inputs[key] = _Inputs(*key, self._longs, self._ints, len(self._rows.tables))
        return x

    def _load(self, x: _Inputs, size: Size, planned: np.ndarray, num_query: np.ndarray) -> None:
        """Send the inputs of a step to where the recorded one reads them."""
        d, most, behind = size.decodes, size.lines, size.lines + size.chunks
        longs, ints = np.zeros(x.longs.shape, np.int64), np.zeros(x.ints.shape, np.int32)
        query_start, lens, rows = (ints[a:b] for a, b in zip(x.starts[:-1], x.starts[1:], strict=True))
        query_start[: most + 1] = np.arange(most + 1)
        query_start[behind : x.seqs], query_start[x.seqs] = most + size.tokens, x.total
        lens[d:most], lens[x.seqs - 1], rows[:] = 1, x.total - most - size.tokens, self._resident.idle
        if len(planned):
            ids, positions, starts, seq_lens, *groups = gather_here(self._rows, planned, num_query)
            for line, values in zip(longs, (ids, positions, *groups[::2]), strict=True):
                line[:d], line[most : most + size.tokens] = values[:d], values[d:]
            query_start[most:behind] = most + starts[d:-1] - d
            lens[:d], lens[most:behind] = seq_lens[:d], seq_lens[d:]
            rows[:d], rows[most:behind] = planned[:d], planned[d:]
        platform, index = platform_of(self._device), self._device.index or 0
        x.longs.copy_(platform.send(torch.from_numpy(longs), index))
        x.ints.copy_(platform.send(torch.from_numpy(ints), index))

    def _capture(self, key: tuple[int, int], x: _Inputs) -> tuple[Callable[[], None], torch.Tensor] | None:
        def step() -> torch.Tensor:
            return self._hidden[: x.total].copy_(self._step(key, x))

        try:
            made = platform_of(self._device).capture(step, step, self._device.index or 0)
        except RuntimeError as error:
            log.warning("steps with chunks of prompts run without graphs, which is slower: %s", error)
            self._is_on = False
            return None
        self._made[key] = made
        return made

    def _step(self, key: tuple[int, int], x: _Inputs) -> torch.Tensor:
        # why: kernels that may be recorded read lengths on the device, and of these only which are one
        lens, query = [self._max_len] * x.seqs, [1] * key[0] + [2] * (CHUNKS + 1)
        if self._device.type == "cpu":
            lens, query = x.lens.tolist(), x.query_start.diff().tolist()
        state = self._resident.state
        tables = [table.index_select(0, x.rows) for table in state.tables]
        batch = Batch(
            token_ids=x.longs[0],
            positions=x.longs[1],
            query_start=x.query_start,
            seq_lens=x.lens,
            groups=[GroupBatch(*three) for three in zip(x.longs[2:], tables, state.block_sizes, strict=True)],
            num_tokens=x.total,
            num_seqs=x.seqs,
            max_query_len=x.total,
            max_seq_len=self._max_len,
            query_lens=query,
            host_seq_lens=lens,
        )
        return self._model(batch)
