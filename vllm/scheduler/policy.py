"""Who is served first: the order of the waiting, and of those who lose their blocks when there are too few.

For: one rank per sequence, given once; smaller is served first and preempted last. Does not know: blocks, budgets.
Invariant: ranks are unique (they end in seq_id), so every order is total and a replay gives the same plans.
Called by: scheduler.
"""

import heapq
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Protocol

from vllm.errors import ValidationError
from vllm.protocol.sequence import Sequence


class Policy(Protocol):
    """An order of service."""

    displaces: bool
    """Whether `victim` can find anybody at all."""

    def rank(self, seq: Sequence) -> tuple[float, ...]:
        """The place of a new sequence; called once for each."""
        ...

    def victim(self, new: Sequence, running: Items[Sequence]) -> Sequence | None:
        """Whose place `new` may take by preemption; None: it has to wait."""
        ...

    def admitted(self, seq: Sequence) -> None:
        """`seq` got a row."""
        ...

    def ended(self, seq: Sequence) -> None:
        """`seq` is over."""
        ...


class FirstCome:
    """In order of arrival."""

    displaces = False

    def rank(self, seq: Sequence) -> tuple[float, ...]:
        return (seq.arrival, seq.seq_id)

    def victim(self, new: Sequence, running: Items[Sequence]) -> Sequence | None:
        return None

    def admitted(self, seq: Sequence) -> None:
        pass

    def ended(self, seq: Sequence) -> None:
        pass


class ByPriority(FirstCome):
    """Smaller `priority` first, then in order of arrival. A more urgent request takes the place of a less urgent."""

    displaces = True

    def rank(self, seq: Sequence) -> tuple[float, ...]:
        return (seq.request.priority, seq.arrival, seq.seq_id)

    def victim(self, new: Sequence, running: Items[Sequence]) -> Sequence | None:
        worst = max(running, key=lambda seq: seq.rank, default=None)
        return worst if worst is not None and new.rank[0] < worst.rank[0] else None


BURST = 16
"""Requests of usual size that a tenant may send at once, after a time of silence, before it has to wait its turn."""


class Fair(FirstCome):
    """Tenants with work share the tokens evenly, whoever asks for more (start-time fair queueing).

    A sequence's rank is the moment, in virtual tokens, at which its tenant's earlier work would be done if all tenants
    were served at one even rate. Virtual time is the highest rank among the admissions; a tenant that asked for less
    than its share before may fall behind it by `BURST` usual requests at most, so its small bursts go first. What a
    sequence will cost is its prompt (once per request) and as many tokens as its tenant's sequences gave lately.

    A sequence whose turn was at least a usual request earlier takes the place of the worst that runs: who asks for less
    than its share need not wait for the long answers of one that fills every row. Ranks stay as they are, so an
    exchange is never undone by another, and everybody comes to be the first.
    """

    displaces = True

    def __init__(self) -> None:
        self._now = 0.0
        self._usual_cost = 0.0
        self._done_at: dict[str, float] = {}
        self._usual_output: dict[str, float] = {}

    def rank(self, seq: Sequence) -> tuple[float, ...]:
        tenant, request = seq.request.tenant, seq.request
        output = min(request.max_len - seq.prompt_len, self._usual_output.get(tenant, 64.0))
        cost = output + (seq.prompt_len if seq.index == 0 else 0)
        self._usual_cost += 0.1 * (cost - self._usual_cost)
        oldest = self._now - BURST * self._usual_cost
        start = max(oldest, self._done_at.get(tenant, oldest))
        self._done_at[tenant] = start + cost
        return (start, seq.arrival, seq.seq_id)

    def victim(self, new: Sequence, running: Items[Sequence]) -> Sequence | None:
        worst = max(running, key=lambda seq: seq.rank, default=None)
        if worst is None or worst.request.tenant == new.request.tenant:
            return None
        return worst if new.rank[0] + self._usual_cost <= worst.rank[0] else None

    def admitted(self, seq: Sequence) -> None:
        self._now = max(self._now, seq.rank[0])

    def ended(self, seq: Sequence) -> None:
        tenant, output = seq.request.tenant, len(seq.tokens) - seq.prompt_len
        usual = self._usual_output.get(tenant, float(output))
        self._usual_output[tenant] = 0.9 * usual + 0.1 * output
        if len(self._done_at) > 10_000:  # why: tenants that are done long ago must not fill the memory
            self._done_at = {t: at for t, at in self._done_at.items() if at > self._now}
            self._usual_output = {t: self._usual_output[t] for t in self._done_at if t in self._usual_output}


POLICIES: dict[str, type[Policy]] = {"fcfs": FirstCome, "priority": ByPriority, "fair": Fair}


def make_policy(name: str) -> Policy:
    """The policy of this name; ValidationError names the known ones."""
    if name not in POLICIES:
        raise ValidationError.of("scheduling_policy", name, f"one of {', '.join(POLICIES)}")
    return POLICIES[name]()


class Queue:
    """The waiting, best rank first. A sequence that leaves is only marked; its entry goes when it comes to the top."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, ...], int, Sequence]] = []
        self._tickets = 0
        self._lengths: dict[int, int] = {}
        self.num_tokens = 0
        """Known tokens of the waiting, as many as each had when it was queued."""

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[Sequence]:
        return (seq for _, ticket, seq in self._heap if seq.ticket == ticket)

    def push(self, seq: Sequence) -> None:
        """Queue a sequence by its rank."""
        assert seq.ticket < 0, f"{seq!r} is queued already"
        seq.ticket = self._tickets
        self._tickets += 1
        self._lengths[seq.ticket] = len(seq.tokens)
        self.num_tokens += len(seq.tokens)
        heapq.heappush(self._heap, (seq.rank, seq.ticket, seq))

    def peek(self) -> Sequence | None:
        """The first to be served, or None."""
        while self._heap and self._heap[0][2].ticket != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def discard(self, seq: Sequence) -> None:
        """Take a sequence out, if it is in."""
        if seq.ticket >= 0:
            self.num_tokens -= self._lengths.pop(seq.ticket)
            seq.ticket = -1
