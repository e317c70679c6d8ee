"""Which rows sample in a step, and which positions of the step's hidden states are their logits lines.

    row a, no draft:    .  .  .  x            one line: its last position
    row b, two drafts:  .  x  x  x            a line for each draft and one for what follows
    sibling of a:       the same x as a

Called by: runner.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Picked:
    """Parallel lists, one entry per row that samples."""

    rows: list[int]
    nums: list[int]
    """Lines of the row: one, and one more per draft token."""
    lens: list[int]
    """Tokens the row has (drafts included) before what its last line chooses."""
    last: list[int]
    """Position in the step of the row's last line."""
    is_plain: bool
    """Every row has one line."""

    def add(self, row: int, length: int, last: int) -> None:
        """A row with one line."""
        self.rows.append(row)
        self.nums.append(1)
        self.lens.append(length)
        self.last.append(last)

    def line_of(self, row: int) -> int:
        """Position in the step of a row's last line."""
        return self.last[self.rows.index(row)]

    def line_rows(self) -> list[int]:
        """The row of each line."""
        if self.is_plain:
            return self.rows
        return [row for row, num in zip(self.rows, self.nums, strict=True) for _ in range(num)]

    def line_lens(self) -> list[int]:
        """Tokens before what each line chooses."""
        return self._spread(self.lens)

    def where(self) -> list[int]:
        """Position in the step of each line."""
        return self._spread(self.last)

    def _spread(self, ends: list[int]) -> list[int]:
        if self.is_plain:
            return ends
        return [end - num + 1 + j for end, num in zip(ends, self.nums, strict=True) for j in range(num)]


def some_of(where: list[int], num_tokens: int, together: int) -> np.ndarray | None:
    """`where`, filled up to a multiple of `together` with any of the step's tokens; None for half of them and more."""
    num = max(1, -(-len(where) // together)) * together
    if 2 * num > num_tokens:
        return None
    return np.array(where + (where[-1:] or [0]) * (num - len(where)), np.int64)
