"""Words of the sampling room: a logits line, what a row asked for, what comes out.

A step has N lines, one per position that yields a token; a row has one line, or several when it verifies drafts, and
siblings of a request share the logits of one line (their lines are copies). Called by: worker, every stage.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from vllm.protocol.step import RowOpen, TokenLogprobs


@dataclass(slots=True)
class Lines:
    """The lines of one step, in order. Parallel lists."""

    rows: list[int]
    """Worker row of each line."""
    lens: list[int]
    """Tokens the row has before the one to be chosen: its absolute position."""
    tokens: torch.Tensor
    """[rows of the worker, positions] token table, host or device; row r's tokens are tokens[r, :len]."""


class Stage(Protocol):
    """One sampling option. It keeps the state of the rows that asked for it, and is not run when no line asks.

    `apply` changes logits [N, V] (float32) in place for the lines given. `failed` collects line -> why for a line whose
    row must fail alone.
    """

    def wants(self, row: RowOpen) -> bool:
        """The row asks for this option."""
        ...

    def open(self, row: RowOpen) -> None:
        """A row that asks takes its place."""
        ...

    def close(self, row: int) -> None:
        """The row is free again."""
        ...

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        """Change the lines `which`."""
        ...


@runtime_checkable
class Head(Protocol):
    """Takes hidden states of a row's tokens instead of logits: what its request asks for is made of them."""

    def wants(self, row: RowOpen) -> bool:
        """The row asks for it."""
        ...

    def open(self, row: RowOpen) -> None:
        """A row that asks takes its place."""
        ...

    def close(self, row: int) -> None:
        """The row is free again."""
        ...

    def read(self, row: int, first: int, states: torch.Tensor) -> bytes | None:
        """States [n, E] of the row's tokens from position `first` on; what came of them once they are all there."""
        ...


@dataclass(slots=True)
class Sampled:
    """What sampling gives back for N lines."""

    tokens: torch.Tensor
    """[N] int64"""
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    """line -> log-probabilities, for lines whose row asked."""
    failed: dict[int, str] = field(default_factory=dict)
    """line -> why its row fails alone."""
