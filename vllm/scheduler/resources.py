"""What a sequence must hold besides blocks: a row of the worker, and whatever features ask for.

For: giving and taking back, with nothing lost on a refusal. Does not know: the order of service.
Invariant: a row has one owner; claims of a sequence are all held or none. Called by: scheduler.
"""

from heapq import heapify, heappop, heappush

from vllm.protocol.sequence import Sequence


class Rows:
    """Row numbers 0..n-1 of the worker; the lowest free one goes first, so that batches stay dense."""

    def __init__(self, n: int) -> None:
        self.total = n
        self._free = list(range(n))
        heapify(self._free)
        self._taken = [False] * n

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A free row; the caller has checked that there is one."""
        row = heappop(self._free)
        self._taken[row] = True
        return row

    def give_back(self, row: int) -> None:
        """The row is free for the next plan (a plan's closes come before its opens)."""
        assert self._taken[row], f"row {row} given back twice"
        self._taken[row] = False
        heappush(self._free, row)

    def check(self, running: list[Sequence]) -> None:
        """Every row is free or has one running owner."""
        rows = sorted([*self._free, *(seq.row for seq in running)])
        assert rows == list(range(self.total)), f"rows are {rows}"


def claim(seq: Sequence, num_tokens: int) -> bool:
    """Reserve every resource of `seq` for its admission, or none of them."""
    for i, resource in enumerate(seq.resources):
        if not resource.reserve(seq, num_tokens):
            for held in seq.resources[:i]:
                held.release(seq)
            return False
    return True


def extend(seq: Sequence, num_tokens: int) -> bool:
    """Ask every resource for more tokens of an admitted sequence; it keeps what it holds either way."""
    return all(resource.reserve(seq, num_tokens) for resource in seq.resources)


def drop(seq: Sequence) -> None:
    """Give every resource of an admitted sequence back."""
    for resource in seq.resources:
        resource.release(seq)
