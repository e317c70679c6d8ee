"""What becomes of a plan: who is in it and by how much it moves them on. Called by: scheduler, engine (settles it)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from vllm.protocol.sequence import Sequence


@dataclass(slots=True)
class InFlight:
    """What a submitted plan will change on the host once its result is here."""

    step_id: int
    sampled: list[Sequence] = field(default_factory=list)
    sampled_query: list[int] = field(default_factory=list)
    """Positions by which each of `sampled` was moved on when it was planned."""
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    """Sequences that only computed known tokens, and how many."""
    num_tokens: int = 0

    def sequences(self) -> Iterator[Sequence]:
        """Everybody in the step."""
        yield from self.sampled
        yield from (seq for seq, _ in self.chunks)
