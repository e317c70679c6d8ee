"""Logits processors given to the engine: vLLM's classes, one instance per row."""

from typing import ClassVar

import pytest
import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.custom import (
    AdapterLogitsProcessor,
    BatchUpdate,
    Custom,
    LogitsProcessor,
    MoveDirectionality,
    find_classes,
    process_dict_updates,
)
from vllm.sampling.lines import Lines
from vllm.sampling_params import SamplingParams

V = 8


def row(index, tokens, prompt_len, **words):
    params = SamplingParams(**words)
    return RowOpen(index, 100 + index, 0, list(tokens), prompt_len, 0, [], params, 0, 64, frozenset(), {})


class Only(AdapterLogitsProcessor):
    """Leaves one token, and notes what it saw."""

    seen: ClassVar[list[tuple[list[int], ...]]] = []

    @classmethod
    def validate_params(cls, sampling_params):
        if not isinstance((sampling_params.extra_args or {}).get("only", 0), int):
            raise ValueError("only must be a whole number")

    def is_argmax_invariant(self):
        return False

    def new_req_logits_processor(self, params):
        only = (params.extra_args or {}).get("only")
        if only is None:
            return None

        def keep(prompt_ids, output_ids, logits):
            self.seen.append((list(prompt_ids), list(output_ids)))
            kept = logits[only].item()
            logits[:] = float("-inf")
            logits[only] = kept
            return logits

        return keep


class Late(LogitsProcessor):
    """Drops all below half of the most likely: stands behind the temperature."""

    def __init__(self, vllm_config, device, is_pin_memory):
        self.given = (vllm_config, device.type, is_pin_memory)
        self.updates = []

    def is_argmax_invariant(self):
        return True

    def update_state(self, batch_update):
        self.updates.append(batch_update)

    def apply(self, logits):
        probs = logits.softmax(-1)
        return logits.masked_fill(probs < 0.5 * probs.amax(-1, keepdim=True), float("-inf"))


def lines(rows, lens, tokens):
    table = torch.zeros(4, 64, dtype=torch.int64)
    for r, ids in zip(rows, tokens, strict=True):
        table[r, : len(ids)] = torch.tensor(ids)
    return Lines(rows, lens, table)


def test_a_row_has_its_own_instance_and_sees_its_tokens():
    Only.seen.clear()
    stage = Custom([Only], "config", "cpu")
    stage.open(row(0, [1, 2], 2, extra_args={"only": 5}))
    stage.open(row(2, [3], 1))
    logits, failed = torch.arange(2.0 * V).view(2, V).clone(), {}
    before = logits.clone()
    stage.apply(logits, lines([0, 2], [2, 1], [[1, 2], [3]]), [0, 1], failed)
    assert not failed and logits[0].argmax() == 5 and logits[0, 5] == before[0, 5]
    assert torch.equal(logits[1], before[1])
    stage.apply(logits, lines([0], [4], [[1, 2, 5, 6]]), [0], failed)
    assert Only.seen == [([1, 2], []), ([1, 2], [5, 6])]
    stage.close(0)
    stage.open(row(0, [4, 7], 1))  # used again, after preemption with a token of its own
    logits = before.clone()
    stage.apply(logits, lines([0], [2], [[4, 7]]), [0], failed)
    assert torch.equal(logits, before) and not failed


def test_an_argmax_invariant_one_sees_logits_over_temperature():
    stage = Custom([Late], "config", "cpu")
    line = torch.tensor([[0.0, 1.0, 2.0, 2.5, -1.0, -1.0, -1.0, -1.0]])
    kept = {}
    for temperature in (0.0, 0.5, 1.0):
        stage.open(row(0, [1], 1, temperature=temperature))
        logits = line.clone()
        stage.apply(logits, lines([0], [1], [[1]]), [0], {})
        kept[temperature] = int(torch.isfinite(logits).sum())
        same = torch.isfinite(logits)
        assert torch.allclose(logits[same], line[same])
        stage.close(0)
    assert kept == {0.0: V, 0.5: 1, 1.0: 2}  # exp(-0.5) is over a half, exp(-1) is not


def test_what_it_does_wrong_is_its_own_lines():
    class Wrong(Late):
        def is_argmax_invariant(self):
            return False

        def apply(self, logits):
            return logits[:, :3]

    stage = Custom([Wrong], "config", "cpu")
    stage.open(row(1, [1], 1))
    failed = {}
    stage.apply(torch.zeros(1, V), lines([1], [1], [[1]]), [0], failed)
    assert "logits processor Wrong raised ValueError: apply must return a tensor of shape (1, 8)" in failed[0]
    stage = Custom([Only], "config", "cpu")
    with pytest.raises(ValueError, match="only must be a whole number"):
        stage.open(row(0, [1], 1, extra_args={"only": "x"}))
    stage.close(0)


def test_process_dict_updates():
    entries: dict[int, int] = {}
    params = SamplingParams()

    def new(p, prompt, output):
        return None if prompt is None else len(prompt)

    assert not process_dict_updates(entries, None, new)
    added = [(0, params, [1], []), (1, params, [1, 2], []), (2, params, None, [])]
    assert process_dict_updates(entries, BatchUpdate(3, added=added), new) and entries == {0: 1, 1: 2}
    swap = BatchUpdate(3, moved=[(0, 1, MoveDirectionality.SWAP)])
    assert process_dict_updates(entries, swap, new) and entries == {0: 2, 1: 1}
    one_way = BatchUpdate(3, removed=[0], moved=[(1, 0, MoveDirectionality.UNIDIRECTIONAL)])
    assert process_dict_updates(entries, one_way, new) and entries == {0: 1}
    assert not process_dict_updates(entries, BatchUpdate(3, removed=[7]), new)


def test_find_classes():
    name = f"{__name__}:Only"
    assert find_classes([Late, name, name.replace(":", ".")]) == [Late, Only, Only]
    for wrong in (["no.such:Thing"], [f"{__name__}:lines"], [len], ["plain"]):
        with pytest.raises(ValueError, match="logits_processors"):
            find_classes(wrong)
