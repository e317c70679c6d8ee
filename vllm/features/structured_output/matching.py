"""A row's constraint at work: which tokens may come next, given the output so far.

    may think ─▶ thinking ─▶ gap ─▶ on ─▶ over          (a row that may not think begins at `on`)

Does not know: torch, logits, rows' numbers. Invariants: the state depends on the output tokens alone, so a restarted or
preempted sequence is at the same place once its tokens are replayed; tokens that were taken back (rejected drafts) are
forgotten. Called by: device, host (the data).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import numpy.typing as npt

from vllm.features.structured_output.source import Source

Mask = npt.NDArray[np.int32]
_WORD = 32


@dataclass(frozen=True, slots=True)
class Thinking:
    """Tokens of the reasoning span that may come before the constraint."""

    is_open: bool
    """The output begins inside it."""
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    gap: tuple[int, ...] = ()
    """Tokens of white space, one of which may stand behind it."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a request carries."""

    source: Source
    thinking: Thinking | None = None

    def as_data(self) -> dict[str, object]:
        """Plain data, for wires."""
        return asdict(self)

    @classmethod
    def of_data(cls, data: Any) -> "Constraint":
        """From plain data again."""
        thought = data["thinking"]
        if thought is not None:
            parts = {name: tuple(thought[name]) for name in ("begins", "ends", "gap")}
            thought = Thinking(is_open=thought["is_open"], **parts)
        return cls(Source(**data["source"]), thought)


class Phase(Enum):
    """Where a row stands."""

    MAY_THINK = auto()
    THINKING = auto()
    GAP = auto()
    ON = auto()
    OVER = auto()


class Violation(Exception):
    """The output does not follow the constraint, or the matcher gave up: the sequence fails with this text."""


class Matching:
    """One row. `matcher` is llguidance's, at its start and our own; `end_ids` are tokens that end the sequence."""

    def __init__(self, matcher: Any, thinking: Thinking | None, end_ids: Sequence[int]) -> None:
        self._matcher, self._thinking, self._end_ids = matcher, thinking, tuple(end_ids)
        self._seen: list[int] = []
        self._before: list[tuple[Phase, bool]] = []
        """For each token of `_seen`: the phase before it, and whether the matcher has taken it."""
        self._refused_at: int | None = None
        """A token of `_seen` that is not allowed; only drafts may hold one."""
        self.phase = Phase.ON
        self._begin()

    def _begin(self) -> None:
        if self._thinking is None:
            self.phase = Phase.ON
        else:
            self.phase = Phase.THINKING if self._thinking.is_open else Phase.MAY_THINK

    @property
    def num_seen(self) -> int:
        """Output tokens taken in."""
        return len(self._seen)

    def follow(self, start: int, tokens: Sequence[int]) -> None:
        """The output from place `start` (at most `num_seen`) on is `tokens`, and nothing comes after them."""
        same = 0
        while same < len(tokens) and start + same < len(self._seen) and self._seen[start + same] == tokens[same]:
            same += 1
        if start + same < len(self._seen):
            self._take_back(start + same)
        for token in tokens[same:]:
            self._take(token)

    def _take_back(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        num_matched = sum(taken for _, taken in self._before[length:])
        if self._refused_at is not None and self._refused_at >= length:
            self._refused_at = None
        kept, self.phase = self._seen[:length], self._before[length][0]
        del self._seen[length:], self._before[length:]
        if num_matched and not self._matcher.rollback(num_matched):
            self._matcher.reset()
            self._seen, self._before = [], []
            self._begin()
            for token in kept:
                self._take(token)

    def _take(self, token: int) -> None:
        before, taken = self.phase, False
        if self._refused_at is None:
            is_allowed, taken = self._step(token)
            if not is_allowed:
                self._refused_at = len(self._seen)
        self._seen.append(token)
        self._before.append((before, taken))

    def _step(self, token: int) -> tuple[bool, bool]:
        """Go on by one token: (it is allowed, the matcher has taken it)."""
        thinking = self._thinking
        if thinking is not None:
            if self.phase is Phase.THINKING:
                self.phase = Phase.GAP if token in thinking.ends else Phase.THINKING
                return True, False
            if self.phase is Phase.MAY_THINK and token in thinking.begins:
                self.phase = Phase.THINKING
                return True, False
            if self.phase is Phase.GAP and token in thinking.gap:
                self.phase = Phase.ON
                return True, False
        if self.phase is Phase.OVER:
            return token in self._end_ids, False
        self.phase = Phase.ON
        if token in self._end_ids and self._matcher.is_accepting():
            self.phase = Phase.OVER
            return True, False
        if self._matcher.validate_tokens([token]) != 1:
            return False, False
        return bool(self._matcher.consume_token(token)), True

    def fill(self, mask: Mask) -> bool:
        """Write the bits of allowed tokens; False when every token is. Raises Violation."""
        if self._refused_at is not None:
            return False  # why: a draft that will not be accepted stands before this place
        if self.phase is Phase.THINKING:
            return False
        if self.phase is Phase.OVER or (self._matcher.is_stopped() and not self._matcher.is_error()):
            mask[:] = 0
            _set(mask, self._end_ids)
            return True
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            raise Violation(
                f"the constraint could not be followed: {' '.join(self._matcher.get_error().split())[:200]}"
            )
        if self._matcher.is_accepting():
            _set(mask, self._end_ids)
        if self._thinking is not None and self.phase is Phase.MAY_THINK:
            _set(mask, self._thinking.begins)
        if self._thinking is not None and self.phase is Phase.GAP:
            _set(mask, self._thinking.gap)
        return True

    @property
    def is_over(self) -> bool:
        """Only the end may come."""
        return self.phase is Phase.OVER or (self.phase is Phase.ON and self._matcher.is_stopped())

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end the sequence."""
        return self._end_ids


def _set(mask: Mask, ids: Sequence[int]) -> None:
    """Allow these tokens too."""
    bits = mask.view(np.uint32)
    for i in ids:
        if i < mask.size * _WORD:
            bits[i // _WORD] |= np.uint32(1 << (i % _WORD))
