"""The device's side: matchers beside the rows (S2), and a stage that forbids what they do not allow (S4).

Masks are made on the host, after the forward pass of the step was given to the device and before its logits are used;
lines of other rows are not touched. Called by: assembly and the workers (as an extra stage of the sampler).
"""

import numpy as np
import torch

from vllm.features.structured_output.compiler import Compiler
from vllm.features.structured_output.manifest import KEY
from vllm.features.structured_output.matching import Constraint, Matching, Violation
from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines

_WORD = 32


class GrammarStage:
    """Keeps, per row, its matching and the length of its prompt."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._rows: dict[int, tuple[Matching, int]] = {}
        words = (max(compiler.num_logits, 1) + _WORD - 1) // _WORD
        self._num_words = words
        self._mask: torch.Tensor | None = None
        self._shifts = torch.arange(_WORD, dtype=torch.int32)

    def wants(self, row: RowOpen) -> bool:
        return KEY in row.features

    def open(self, row: RowOpen) -> None:
        """Also replays the output that the row has: after a restart or a preemption."""
        constraint = Constraint.of_data(row.features[KEY])
        end_ids = sorted(row.stop_ids | row.sampling.all_stop_token_ids)
        matching = Matching(self._compiler.matcher(constraint.source), constraint.thinking, end_ids)
        matching.follow(0, row.token_ids[row.prompt_len :])
        self._rows[row.row] = matching, row.prompt_len

    def close(self, row: int) -> None:
        self._rows.pop(row, None)

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            matching, prompt_len = self._rows[lines.rows[n]]
            length = lines.lens[n] - prompt_len
            # why: drafts that were not accepted are at the end of what was seen, and there are few
            start = max(0, min(matching.num_seen, length) - 64)
            tokens = lines.tokens[lines.rows[n], prompt_len + start : prompt_len + length].tolist()
            matching.follow(start, tokens)
            mask = self._buffer(logits.device, logits.shape[1])
            try:
                is_bound = matching.fill(mask.numpy())
            except Violation as violation:
                failed[n] = str(violation)
                continue
            if is_bound:
                self._forbid(logits[n], mask, matching)

    def _buffer(self, device: torch.device, num_logits: int) -> torch.Tensor:
        """A mask to fill: pinned where the device reads it later, and then a new one each time."""
        words = (max(num_logits, self._compiler.tokenizer.vocab_size) + _WORD - 1) // _WORD
        if device.type != "cpu":
            return torch.empty(words, dtype=torch.int32, pin_memory=True)
        if self._mask is None or self._mask.numel() != words:
            self._mask = torch.empty(words, dtype=torch.int32)
        return self._mask

    def _forbid(self, line: torch.Tensor, mask: torch.Tensor, matching: Matching) -> None:
        if matching.is_over:
            # why: min_tokens may have forbidden the end, and nothing else is allowed
            ends = torch.tensor([i for i in matching.end_ids if i < line.shape[0]], device=line.device)
            kept = line[ends]
            line.fill_(float("-inf"))
            line[ends] = torch.where(torch.isinf(kept).all(), torch.zeros_like(kept), kept)
            return
        if line.device.type == "cpu":
            bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")[: line.shape[0]]
            line.masked_fill_(torch.from_numpy(bits == 0), float("-inf"))
            return
        there = mask.to(line.device, non_blocking=True)
        if self._shifts.device != line.device:
            self._shifts = self._shifts.to(line.device)  # why: once, for it waits for all that the device has to do
        bits_there = (there[:, None] >> self._shifts) & 1
        line.masked_fill_(bits_there.flatten()[: line.shape[0]] == 0, float("-inf"))
