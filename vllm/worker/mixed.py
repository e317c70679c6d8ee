"""Steps with some chunks of prompts beside decodes, recorded by size: to launch their kernels one by one takes the host
longer than the kernels take.

    tokens     | decodes | idle | chunks one behind the other | idle |         each part is filled up to a bucket
    sequences  | decodes | idle | chunks | empty ones | one of idle tokens |

Idle tokens read and write the null block. Does not know: plans, sampling. Called by: ahead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vllm.layers.build import Model
from vllm.ops.batch import Batch, GroupBatch
from vllm.platforms.base import platform_of
from vllm.util.log import get_logger
from vllm.worker.batch import gather_here
from vllm.worker.rows import Rows

CHUNKS = 8
"""Most chunks in a step; a ninth sequence is that of the idle tokens."""
TOKENS = (32, 64, 128, 192, 256, 384, 512, 768, 1024)
DECODES = (0, 8, 32, 64, 128, 256)
log = get_logger(__name__)


@dataclass(slots=True)
class Size:
    """How large a step is, and the buckets that it is filled up to."""

    decodes: int
    chunks: int
    tokens: int
    """Of the chunks."""
    most_decodes: int
    most_tokens: int


class _Inputs:
    """What a recorded step reads: two arenas, each filled by one copy."""

    def __init__(self, decodes: int, tokens: int, widths: list[int], device: torch.device) -> None:
        self.total, self.seqs = decodes + tokens, decodes + CHUNKS + 1
        self.longs = torch.zeros((2 + len(widths), self.total), dtype=torch.int64, device=device)
        sizes = [self.seqs + 1, self.seqs, *(self.seqs * width for width in widths)]
        self.starts = np.cumsum([0] + [-(-size // 4) * 4 for size in sizes])  # why: kernels like multiples of 16 bytes
        self.ints = torch.zeros(int(self.starts[-1]), dtype=torch.int32, device=device)
        self.parts = [self.ints[a : a + n] for a, n in zip(self.starts[:-1], sizes, strict=True)]
        self.tables = [part.view(self.seqs, -1) for part in self.parts[2:]]


class Mixed:
    """Runs such steps."""

    def __init__(self, model: Model, rows: Rows, device: torch.device, max_len: int) -> None:
        self._model, self._rows, self._device, self._max_len = model, rows, device, max_len
        self._inputs: dict[tuple[int, int], _Inputs] = {}
        self._made: dict[tuple[int, int], tuple[Callable[[], None], torch.Tensor]] = {}
        self._is_on = True

    def size(self, num_query: np.ndarray) -> Size | None:
        """The size of a step with these numbers of tokens; None for one that is not recorded."""
        longer = num_query > 1
        decodes = int(longer.argmax())
        chunks, tokens = len(num_query) - decodes, int(num_query.sum()) - decodes
        if not self._is_on or not longer[decodes:].all() or chunks > CHUNKS:
            return None
        most = next((n for n in TOKENS if tokens <= n <= self._max_len), None)
        beside = next((n for n in DECODES if n >= decodes), None)
        return None if most is None or beside is None else Size(decodes, chunks, tokens, beside, most)

    def run(
        self, size: Size, planned: np.ndarray, num_query: np.ndarray, fill: Callable[[torch.Tensor], None]
    ) -> torch.Tensor | None:
        """Hidden states of the step's tokens, which hold until the next run; None where it cannot be recorded.

        `fill` puts tokens that only the device knows among the ids it is given.
        """
        key = size.most_decodes, size.most_tokens
        x = self._inputs.get(key)
        if x is None:
            widths = [table.shape[1] for table in self._rows.tables]
            x = self._inputs[key] = _Inputs(*key, widths, self._device)
        self._load(x, size, planned, num_query)
        fill(x.longs[0])
        made = self._made.get(key) or self._capture(key, x)
        if made is None:
            return None
        made[0]()
        return torch.cat((made[1][: size.decodes], made[1][key[0] : key[0] + size.tokens]))

    def _load(self, x: _Inputs, size: Size, planned: np.ndarray, num_query: np.ndarray) -> None:
        """Send the inputs of a step to where the recorded one reads them."""
        d, most, behind = size.decodes, size.most_decodes, size.most_decodes + size.chunks
        ids, positions, starts, lens, *groups = gather_here(self._rows, planned, num_query)
        longs = np.zeros(x.longs.shape, np.int64)
        for line, values in zip(longs, (ids, positions, *groups[::2]), strict=True):
            line[:d], line[most : most + size.tokens] = values[:d], values[d:]
        ints = np.zeros(x.ints.shape, np.int32)
        parts = [ints[a:b] for a, b in zip(x.starts[:-1], x.starts[1:], strict=True)]
        parts[0][: most + 1] = np.arange(most + 1)
        parts[0][most:behind] = most + starts[d:-1] - d
        parts[0][behind : x.seqs], parts[0][x.seqs] = most + size.tokens, x.total
        parts[1][:d], parts[1][d:most], parts[1][most:behind] = lens[:d], 1, lens[d:]
        parts[1][x.seqs - 1] = size.most_tokens - size.tokens
        for part, there, table in zip(parts[2:], x.tables, groups[1::2], strict=True):
            lines = part[: there.numel()].reshape(there.shape)
            lines[:d, : table.shape[1]], lines[most:behind, : table.shape[1]] = table[:d], table[d:]
        platform, index = platform_of(self._device), self._device.index or 0
        x.longs.copy_(platform.send(torch.from_numpy(longs), index))
        x.ints.copy_(platform.send(torch.from_numpy(ints), index))

    def _capture(self, key: tuple[int, int], x: _Inputs) -> tuple[Callable[[], None], torch.Tensor] | None:
        def step() -> torch.Tensor:
            return self._step(key, x)

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
            lens, query = x.parts[1].tolist(), x.parts[0].diff().tolist()
        sizes = self._rows.block_sizes
        batch = Batch(
            token_ids=x.longs[0],
            positions=x.longs[1],
            query_start=x.parts[0],
            seq_lens=x.parts[1],
            groups=[GroupBatch(*three) for three in zip(x.longs[2:], x.tables, sizes, strict=True)],
            num_tokens=x.total,
            num_seqs=x.seqs,
            max_query_len=key[1],
            max_seq_len=self._max_len,
            query_lens=query,
            host_seq_lens=lens,
        )
        return self._model(batch)
