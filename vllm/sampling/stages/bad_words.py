"""bad_words: the last token of a forbidden run of tokens is forbidden where the output ends with the rest of the run.

The host turns words into runs of token ids (features["bad_words_ids"]); only output tokens count as the rest.
"""

import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines


class BadWords:
    """Keeps, per row, ids that are always forbidden, runs of two and more, and the prompt's length."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[torch.Tensor, list[list[int]], int]] = {}

    def wants(self, row: RowOpen) -> bool:
        return bool(row.features.get("bad_words_ids"))

    def open(self, row: RowOpen) -> None:
        runs = row.features["bad_words_ids"]
        assert isinstance(runs, list)
        single = torch.tensor([run[0] for run in runs if len(run) == 1], dtype=torch.int64)
        self._rows[row.row] = single, [list(run) for run in runs if len(run) > 1], row.prompt_len

    def close(self, row: int) -> None:
        del self._rows[row]

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            row, length = lines.rows[n], lines.lens[n]
            single, runs, prompt_len = self._rows[row]
            single = single[single < logits.shape[1]]
            if single.numel():
                logits[n].index_fill_(0, single.to(logits.device), float("-inf"))
            longest = max((len(run) for run in runs), default=1) - 1
            tail = lines.tokens[row, max(prompt_len, length - longest) : length].tolist() if longest else []
            for run in runs:
                if (
                    run[-1] < logits.shape[1]
                    and len(tail) >= len(run) - 1
                    and tail[len(tail) - len(run) + 1 :] == run[:-1]
                ):
                    logits[n, run[-1]] = float("-inf")
