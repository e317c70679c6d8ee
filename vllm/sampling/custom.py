"""Logits processors of a user's own, given to the engine: vLLM's classes, and the stage that runs them.

    class Mine(AdapterLogitsProcessor):              LLM(..., logits_processors=[Mine, "package.module:Other"])
        def new_req_logits_processor(self, params): ...

A processor is written for a batch whose members come and go (`update_state`) and whose logits change at once (`apply`).
Here each row has an instance of its own, a batch of one at index 0, so what one request's processor does wrong ends
that request alone. Instances are used again when a row ends. Does not know: requests, steps.
Called by: assembly (makes the stage), users (through vllm.v1.sample.logits_processor).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import torch

from vllm.errors import ValidationError
from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines
from vllm.sampling_params import SamplingParams

RequestLogitsProcessor = Callable[..., torch.Tensor]
"""(output_ids, logits) -> logits, or (prompt_ids, output_ids, logits) -> logits, for one request."""
AddedRequest = tuple[int, SamplingParams, "list[int] | None", list[int]]
"""index, params, prompt ids, output ids (the list itself grows)"""


class MoveDirectionality(Enum):
    """Whether a move of a request to another index was one way, or changed places with the other."""

    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True)
class BatchUpdate:
    """How the batch has changed since the step before: first `removed`, then `added`, then `moved`."""

    batch_size: int
    removed: Sequence[int] = ()
    added: Sequence[AddedRequest] = ()
    moved: Sequence[tuple[int, int, MoveDirectionality]] = ()


class LogitsProcessor(ABC):
    """What a user's class must have."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raise ValueError for params that the class cannot serve."""
        del sampling_params

    @abstractmethod
    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None: ...

    @abstractmethod
    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits [requests, V] changed, in place or not."""

    @abstractmethod
    def is_argmax_invariant(self) -> bool:
        """Whether the most likely token always stays that; then greedy requests skip it."""

    @abstractmethod
    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take in how the batch has changed; None: not at all. Called before every step."""


class AdapterLogitsProcessor(LogitsProcessor):
    """Makes a class for a batch from functions for a request."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.req_info: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}

    @abstractmethod
    def new_req_logits_processor(self, params: SamplingParams) -> RequestLogitsProcessor | None:
        """The function for a request; None where it wants none."""

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Keep the functions by index."""

        def new(params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> Any:
            function = self.new_req_logits_processor(params)
            return None if function is None else _bound(function, prompt_ids, output_ids)

        process_dict_updates(self.req_info, batch_update, new)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Each function on its line."""
        for index, function in self.req_info.items():
            logits[index] = function(logits[index])
        return logits


def _bound(
    function: RequestLogitsProcessor, prompt_ids: list[int] | None, output_ids: list[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    num = len(inspect.signature(function).parameters)
    past = (prompt_ids or [], output_ids) if num == 3 else (output_ids,)
    return lambda line: function(*past, line)


def process_dict_updates(
    req_entries: dict[int, Any],
    batch_update: BatchUpdate | None,
    new_state: Callable[[SamplingParams, list[int] | None, list[int]], Any],
) -> bool:
    """Keep a dict of index -> what `new_state` says of a request (None: nothing). Returns whether it has changed."""
    if batch_update is None:
        return False
    before = dict(req_entries)
    for index in batch_update.removed:
        req_entries.pop(index, None)
    for index, params, prompt_ids, output_ids in batch_update.added:
        req_entries.pop(index, None)
        state = new_state(params, prompt_ids, output_ids)
        if state is not None:
            req_entries[index] = state
    for here, there, how in batch_update.moved:
        mine, others = req_entries.pop(here, None), req_entries.pop(there, None)
        if mine is not None:
            req_entries[there] = mine
        if others is not None and how is MoveDirectionality.SWAP:
            req_entries[here] = others
    return before.keys() != req_entries.keys() or any(before[i] is not one for i, one in req_entries.items())


@dataclass(slots=True)
class _Place:
    """A row's instances."""

    ones: list[LogitsProcessor]
    output_ids: list[int]
    prompt_len: int
    temperature: float
    news: BatchUpdate | None = field(default=None)


class Custom:
    """The stage: every row runs every class."""

    def __init__(self, classes: Sequence[type[LogitsProcessor]], vllm_config: Any, device: str) -> None:
        self._classes, self._config, self._device = list(classes), vllm_config, torch.device(device)
        self._free: list[list[LogitsProcessor]] = [self._made()]  # why: what a class lacks is said at the start
        self._rows: dict[int, _Place] = {}

    def _made(self) -> list[LogitsProcessor]:
        return [one(self._config, self._device, self._device.type == "cuda") for one in self._classes]

    def wants(self, row: RowOpen) -> bool:
        return "pooling" not in row.features

    def open(self, row: RowOpen) -> None:
        for one in self._classes:
            one.validate_params(row.sampling)
        prompt, outputs = list(row.token_ids[: row.prompt_len]), list(row.token_ids[row.prompt_len :])
        ones = self._free.pop() if self._free else self._made()
        news = BatchUpdate(1, added=[(0, row.sampling, prompt, outputs)])
        self._rows[row.row] = _Place(ones, outputs, row.prompt_len, row.sampling.temperature, news)

    def close(self, row: int) -> None:
        place = self._rows.pop(row, None)  # why: a row whose options failed when it was opened has none
        if place is not None:
            for one in place.ones:
                one.update_state(BatchUpdate(0, removed=[0]))
            self._free.append(place.ones)

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            row = lines.rows[n]
            place = self._rows[row]
            known = place.prompt_len + len(place.output_ids)
            place.output_ids += lines.tokens[row, known : lines.lens[n]].tolist()
            news, place.news = place.news, None
            for one in place.ones:
                try:
                    one.update_state(news)
                    self._run(one, logits, n, place.temperature)
                except Exception as error:  # why: user code may raise anything, and only its own sequence may pay
                    failed[n] = f"logits processor {type(one).__name__} raised {type(error).__name__}: {error}"
                    break

    @staticmethod
    def _run(one: LogitsProcessor, logits: torch.Tensor, n: int, temperature: float) -> None:
        late = one.is_argmax_invariant()
        if late and not temperature:
            return
        line = logits[n : n + 1]
        # why: such a class stands behind the temperature, as min_p does, so it must see what that makes of the logits
        given = line / temperature if late else line
        made = one.apply(given)
        if made.shape != line.shape:
            raise ValueError(f"apply must return a tensor of shape {tuple(line.shape)}, got {tuple(made.shape)}")
        line.copy_(made * temperature if late else made)


def find_classes(given: Sequence[Any]) -> list[type[LogitsProcessor]]:
    """Classes, or their names as `package.module:Class`. Raises ValueError for anything else."""
    from importlib import import_module

    found = []
    for one in given:
        if isinstance(one, str):
            path, _, name = one.partition(":") if ":" in one else one.rpartition(".")
            try:
                one = getattr(import_module(path), name)
            except (ImportError, AttributeError, ValueError) as error:
                raise ValidationError(f"logits_processors: {path}:{name} cannot be imported ({error}).") from None
        if not isinstance(one, type) or not issubclass(one, LogitsProcessor):
            raise ValidationError(
                f"logits_processors must be subclasses of vllm.v1.sample.logits_processor.LogitsProcessor or their "
                f"names as 'package.module:Class', got {one!r}. A function for one request belongs into SamplingParams."
            )
        found.append(one)
    return found
