"""Block tables of sequences over one pool: admit with a prefix hit, grow, fork, trim behind windows, give back.

For: the scheduler's questions "how much is there already", "does it fit" and its orders. Does not know: rows, steps'
contents, tokens' meaning. It keeps `tables`, `limit`, `keys`, `published`, `trimmed` and `publish_at` of a Sequence.

    admission: match -> open -> grow      each step: grow      settled: publish, trim      end: release (deferred)

Invariants: a block that a step in flight may write is not given to anybody else; a block is offered to the prefix cache
only after its tokens have returned to the host; what `check()` counts equals what the pool counts.
Called by: scheduler, engine.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm

from vllm.kv.groups import window_blocks
from vllm.kv.pool import BlockPool
from vllm.kv.prefix import KeyChain, PrefixIndex
from vllm.protocol.kv import NULL_BLOCK, FullKV, KVPlan, LatentKV, SlidingKV
from vllm.protocol.sequence import NEVER, Sequence
from vllm.util.arith import cdiv


@dataclass(slots=True)
class Hit:
    """A prefix that is already in the pool: its length in tokens and, per group, its blocks (null below a window)."""

    length: int
    tables: list[list[int]]


class KVManager:
    """Owns the pool. All lengths are tokens; all block counts are over all groups."""

    def __init__(self, plan: KVPlan, enable_prefix_caching: bool = True, isolate_tenants: bool = False) -> None:
        self.plan = plan
        self.kinds: list[FullKV | SlidingKV | LatentKV] = []
        for group in plan.groups:
            assert isinstance(group.kind, FullKV | SlidingKV | LatentKV), "only paged kinds have block tables"
            self.kinds.append(group.kind)
        self.sizes = [group.block_size for group in plan.groups]
        self.windowed = {g: kind.window for g, kind in enumerate(self.kinds) if isinstance(kind, SlidingKV)}
        self.enable_prefix_caching = enable_prefix_caching
        self.index = PrefixIndex(len(self.sizes))
        self.pool = BlockPool(plan.num_blocks, self.index)
        self.chain = KeyChain(min(self.sizes), isolate_tenants)
        self._align = lcm(*self.sizes)
        self._deferred: deque[tuple[int, list[int]]] = deque()
        self.num_deferred = 0
        """Blocks that come back once steps in flight are done (an upper bound where blocks are shared)."""
        self.last_retired = -1
        """The last step known to be done."""
        self.num_queried = 0
        """Tokens for which the prefix cache was asked at admission."""
        self.num_hit = 0

    @property
    def num_free(self) -> int:
        """Blocks that can be taken now."""
        return len(self.pool.clean) + len(self.pool.cached)

    @property
    def usage(self) -> float:
        """Part of the pool that is not free, 0..1."""
        return 1.0 - self.num_free / (self.plan.num_blocks - 1)

    # -- admission -----------------------------------------------------------------------------------------------

    def no_hit(self) -> Hit:
        """A hit of length 0."""
        return Hit(0, [[] for _ in self.sizes])

    def match(self, seq: Sequence) -> Hit:
        """The longest prefix of `seq` that every group has (wall 4), always shorter than the sequence."""
        if not self.enable_prefix_caching:
            return self.no_hit()
        longest = (len(seq.tokens) - 1) // self._align * self._align
        keys = self.chain.extend(seq, longest)
        length = longest
        while length > 0:
            shorter = self._shortened(keys, length)
            if shorter == length:
                break
            length = shorter
        return Hit(length, [self._hit_table(keys, g, length) for g in range(len(self.sizes))])

    def _key_of(self, keys: list[bytes], group: int, block: int) -> bytes:
        return keys[(block + 1) * (self.sizes[group] // self.chain.block_size) - 1]

    def _shortened(self, keys: list[bytes], length: int) -> int:
        """`length` if every group has what a hit of it needs, else a shorter length that may do."""
        for g, (kind, size) in enumerate(zip(self.kinds, self.sizes, strict=True)):
            first, end = kind.first_needed(length) // size, length // size
            # why: a full group is cut at its first gap, a window at its last: any hit that ends above it would need it.
            blocks = range(end - 1, first - 1, -1) if g in self.windowed else range(end)
            for block in blocks:
                if self.index.find(g, self._key_of(keys, g, block)) is None:
                    return block * size // self._align * self._align
        return length

    def _hit_table(self, keys: list[bytes], group: int, length: int) -> list[int]:
        size = self.sizes[group]
        first = self.kinds[group].first_needed(length) // size
        table = [NULL_BLOCK] * first
        for block in range(first, length // size):
            found = self.index.find(group, self._key_of(keys, group, block))
            assert found is not None, "a matched block is gone"
            table.append(found)
        return table

    def num_revived(self, hit: Hit) -> int:
        """Free blocks that taking this hit would use up."""
        return sum(1 for table in hit.tables for b in table if b != NULL_BLOCK and self.pool.refs[b] == 0)

    def open(self, seq: Sequence, hit: Hit) -> None:
        """Give `seq` the blocks of its hit."""
        assert not seq.tables, f"{seq!r} already has blocks"
        for table in hit.tables:
            self.pool.share(table)
        seq.tables = hit.tables
        seq.trimmed = [self.kinds[g].first_needed(hit.length) // size for g, size in enumerate(self.sizes)]
        seq.published = [len(table) for table in hit.tables]
        seq.num_computed = seq.num_planned = hit.length
        self._measure(seq)
        self._schedule_upkeep(seq)
        if self.enable_prefix_caching:
            self.num_queried += len(seq.tokens)
            self.num_hit += hit.length

    # -- growth --------------------------------------------------------------------------------------------------

    def missing(self, seq: Sequence, num_tokens: int) -> int:
        """Blocks to add before `seq` can hold `num_tokens` tokens."""
        need = 0
        for g, size in enumerate(self.sizes):
            have = len(seq.tables[g]) if seq.tables else 0
            need += max(0, cdiv(num_tokens, size) - have)
        return need

    def demand(self, num_tokens: int, hit: Hit, num_query: int) -> int:
        """Free blocks that a sequence with this hit takes, at most, to get to `num_tokens` in runs of `num_query`."""
        need = self.num_revived(hit)
        for g, size in enumerate(self.sizes):
            most = min(cdiv(num_tokens, size), window_blocks(self.kinds[g], size, num_query))
            held = sum(1 for b in hit.tables[g] if b != NULL_BLOCK)
            need += max(0, most - held)
        return need

    def grow(self, seq: Sequence, num_tokens: int) -> list[tuple[int, list[int]]] | None:
        """Blocks for `num_tokens` tokens; returns (group, new ids), or None, and nothing done, if too few are free."""
        free, added = self.num_free, []
        for g, size in enumerate(self.sizes):
            want = -(-num_tokens // size) - len(seq.tables[g])
            if want > 0:
                free -= want
                added.append((g, want))
        if free < 0:
            return None
        grown = [(g, self.pool.take(want)) for g, want in added]
        for g, blocks in grown:
            seq.tables[g] += blocks
        self._measure(seq)
        return grown

    def _measure(self, seq: Sequence) -> None:
        capacity = len(seq.tables[0]) * self.sizes[0]
        for table, size in zip(seq.tables[1:], self.sizes[1:], strict=True):
            capacity = min(capacity, len(table) * size)
        seq.limit = capacity if capacity < seq.max_len else seq.max_len - 1

    # -- siblings ------------------------------------------------------------------------------------------------

    def fork_cost(self, num_tokens: int) -> int:
        """Blocks that a sibling takes of its own when it forks after `num_tokens` tokens: the partial ones."""
        return sum(1 for size in self.sizes if num_tokens % size)

    def fork(self, parent: Sequence, child: Sequence, num_tokens: int) -> list[tuple[int, int]]:
        """`child` shares the parent's full blocks below `num_tokens`; returns copies (source, destination) to make
        before either computes another token. Each source keeps a reference for its copy (see `copied`)."""
        assert not child.tables, f"{child!r} already has blocks"
        copies = []
        for g, size in enumerate(self.sizes):
            table = parent.tables[g][: num_tokens // size]
            self.pool.share(table)
            if num_tokens % size:
                source = parent.tables[g][num_tokens // size]
                (target,) = self.pool.take(1)
                self.pool.share([source])
                copies.append((source, target))
                table.append(target)
            child.tables.append(table)
        child.trimmed = list(parent.trimmed)
        child.published = [0] * len(self.sizes)
        child.num_computed, child.num_planned = 0, num_tokens
        self._measure(child)
        self._schedule_upkeep(child)
        return copies

    def copied(self, sources: Iterable[int], after_step: int) -> None:
        """The copies from these blocks are part of step `after_step` (-1: they will not be made)."""
        self._give_back(list(sources), after_step)

    # -- after a step --------------------------------------------------------------------------------------------

    def upkeep(self, seq: Sequence) -> None:
        """`seq.num_computed` has passed `publish_at`: publish full blocks, then trim behind windows."""
        done = seq.num_computed
        self._publish(seq)
        for g in self.windowed:
            table = seq.tables[g]
            first = min(self.kinds[g].first_needed(done) // self.sizes[g], len(table))
            if first > seq.trimmed[g]:
                behind = range(seq.trimmed[g], first)
                # why: every step in flight reads and writes at `done` or above, so nobody needs these any more.
                self.pool.release([table[b] for b in behind])
                for b in behind:
                    table[b] = NULL_BLOCK
                seq.trimmed[g] = first
        self._schedule_upkeep(seq)

    def _publish(self, seq: Sequence) -> None:
        """Offer the blocks that are full, and whose tokens have come back, to everybody."""
        if not self.enable_prefix_caching:
            return
        done = seq.num_computed
        keys = self.chain.extend(seq, done)
        for g, size in enumerate(self.sizes):
            table, full = seq.tables[g], done // size
            for block in range(seq.published[g], full):
                if table[block] != NULL_BLOCK:
                    self.index.publish(g, self._key_of(keys, g, block), table[block])
            if full > seq.published[g]:
                seq.published[g] = full

    def _schedule_upkeep(self, seq: Sequence) -> None:
        if not self.enable_prefix_caching and not self.windowed:
            seq.publish_at = NEVER
            return
        # why: a prompt may be shared at once; what is being written now, hardly, and in fours it costs half.
        size = self.chain.block_size if seq.num_computed < seq.prompt_len else 4 * self.chain.block_size
        seq.publish_at = (seq.num_computed // size + 1) * size
        for g, window in self.windowed.items():
            # the length at which the next block falls out of the window
            seq.publish_at = min(seq.publish_at, (seq.trimmed[g] + 1) * self.sizes[g] + window - 1)

    # -- the end -------------------------------------------------------------------------------------------------

    def release(self, seq: Sequence) -> None:
        """Take every block of `seq` back, once the last step that may write them is done."""
        if seq.tables:
            self._publish(seq)
        # why: the end of a sequence is worth less to others than its beginning, so it is reused first.
        if len(seq.tables) == 1:
            blocks = seq.tables[0][::-1]
        else:
            ends = [(i * size, b) for t, size in zip(seq.tables, self.sizes, strict=False) for i, b in enumerate(t)]
            ends.sort(key=lambda end: -end[0])
            blocks = [block for _, block in ends]
        self._give_back([block for block in blocks if block != NULL_BLOCK], seq.last_step)
        seq.tables, seq.trimmed, seq.published = [], [], []
        seq.limit = seq.num_computed = seq.num_planned = 0
        seq.publish_at = NEVER

    def _give_back(self, blocks: list[int], after_step: int) -> None:
        if after_step <= self.last_retired:
            self.pool.release(blocks)
        elif blocks:
            self._deferred.append((after_step, blocks))
            self.num_deferred += len(blocks)

    def retire(self, step_id: int) -> None:
        """Step `step_id` and all before it are done."""
        self.last_retired = step_id
        kept: deque[tuple[int, list[int]]] = deque()
        for after, blocks in self._deferred:
            if after <= step_id:
                self.num_deferred -= len(blocks)
                self.pool.release(blocks)
            else:
                kept.append((after, blocks))
        self._deferred = kept

    def reset(self) -> None:
        """Forget every cached prefix. Sequences that run keep their blocks, and publish no more of what they have."""
        self.pool.forget_all()

    # -- the books -----------------------------------------------------------------------------------------------

    def check_idle(self) -> None:
        """No sequence is left: every block must be free. Quick enough for the end of every request."""
        assert not any(self.pool.refs), "an idle engine holds blocks"
        assert self.num_free == self.plan.num_blocks - 1, "blocks were lost"
        assert not self._deferred and not self.num_deferred, "blocks wait for a step that is not in flight"

    def check(self, live: Iterable[Sequence], copy_sources: Iterable[int] = ()) -> None:
        """Count every reference again; raises AssertionError where the pool and its holders disagree."""
        refs = [0] * self.plan.num_blocks
        holders = [table for seq in live for table in seq.tables]
        for blocks in (*holders, *(blocks for _, blocks in self._deferred), copy_sources):
            for block in blocks:
                refs[block] += block != NULL_BLOCK
        wrong = [b for b in range(self.plan.num_blocks) if refs[b] != self.pool.refs[b]]
        assert not wrong, (
            f"blocks {wrong[:8]}: held {[refs[b] for b in wrong[:8]]}, {[self.pool.refs[b] for b in wrong[:8]]}"
        )
        assert self.num_deferred == sum(len(blocks) for _, blocks in self._deferred), "deferred blocks miscounted"
        self.pool.check()
