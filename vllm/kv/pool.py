"""The physical blocks: who holds how many references, and which block is reused next.

For: one pool of equal blocks with one id space. Does not know: sequences, groups, what a block holds.

    take ─▶ [ held, refs >= 1 ] ─ release (last ref) ─┬─ no key ──▶ clean  (a stack, used first)
                  ▲                                   └─ has key ─▶ cached (LRU: kept for hits until reused)
                  └────────────── share ◀── a hit ────────────────────┘

Invariants: the null block is never given out; a free block has no references and is in exactly one of the two lists;
a key outlives its references and ends when the block is taken again. Called by: kv.manager.
"""

from collections import OrderedDict
from collections.abc import Iterable

from vllm.kv.prefix import PrefixIndex
from vllm.protocol.kv import NULL_BLOCK


class BlockPool:
    """`num_blocks` blocks, the null block counted."""

    def __init__(self, num_blocks: int, index: PrefixIndex) -> None:
        assert num_blocks >= 2, "a pool needs the null block and one more"
        self.num_blocks = num_blocks
        self.index = index
        self.refs = [0] * num_blocks
        self.clean = list(range(num_blocks - 1, NULL_BLOCK, -1))
        self.cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Blocks that `take` can give."""
        return len(self.clean) + len(self.cached)

    def take(self, n: int) -> list[int]:
        """`n` blocks with one reference each, their old keys forgotten. The caller has checked `num_free`."""
        assert n <= self.num_free, f"{n} blocks wanted, {self.num_free} free"
        taken = []
        clean, refs = self.clean, self.refs
        for _ in range(n):
            if clean:
                block = clean.pop()
            else:
                block, _ = self.cached.popitem(last=False)
                self.index.forget(block)
            refs[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """One more reference to each block; null blocks are skipped. A cached block comes back to life."""
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if self.refs[block] == 0:
                del self.cached[block]
            self.refs[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One reference less, in this order: the first to go is the first to be reused. Null blocks are skipped."""
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            left = self.refs[block] - 1
            assert left >= 0, f"block {block} freed twice"
            self.refs[block] = left
            if left == 0:
                if self.index.holds(block):
                    self.cached[block] = None
                else:
                    self.clean.append(block)

    def forget_all(self) -> None:
        """Drop every key; cached blocks become clean. Held blocks stay with their sequences."""
        self.index.clear()
        self.clean.extend(reversed(self.cached))
        self.cached.clear()

    def check(self) -> None:
        """The pool's own books; raises AssertionError."""
        free = [*self.clean, *self.cached]
        assert len(free) == len(set(free)), "a block is free twice"
        assert NULL_BLOCK not in free and self.refs[NULL_BLOCK] == 0, "the null block was given out"
        held = {b for b, refs in enumerate(self.refs) if refs > 0}
        assert held.isdisjoint(free), f"blocks {sorted(held & set(free))} are both free and held"
        assert len(held) + len(free) == self.num_blocks - 1, "blocks were lost"
        assert all(self.index.holds(b) for b in self.cached), "a cached block has no key"
        assert not any(self.index.holds(b) for b in self.clean), "a clean block has a key"
        self.index.check()
