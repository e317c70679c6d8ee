"""Defects to be seeded into the host tower: one line of one function, changed as a tired person would change it.

`seeded(defect)` puts a defect in place for the length of a `with`. The list doubles as a list of what the property
tests are for; docs/log.md says how fast each was caught.
"""

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from vllm.engine import core, settle
from vllm.kv import manager, pool, prefix
from vllm.scheduler import admission, scheduler


@dataclass(frozen=True)
class Defect:
    """In `owner.function`, `right` becomes `wrong`."""

    name: str
    owner: object
    function: str
    right: str
    wrong: str


KV, POOL, CHAIN = manager.KVManager, pool.BlockPool, prefix.KeyChain
PLANNER, ENGINE = scheduler.Scheduler, core.Engine

DEFECTS = [
    Defect("a key ignores the prefix before it", CHAIN, "extend", "blake2b(prev, ", "blake2b(b'', "),
    Defect("a key ignores the salt", prefix, "root_key", "[request.cache_salt, ", "['', "),
    Defect("a key ignores the adapter", prefix, "root_key", "if name in request.features", "if name == ''"),
    Defect("a key ignores embeddings", CHAIN, "extend", "digest.update(extra)", "pass"),
    Defect("a stale key for a reused block", POOL, "take", "self.index.forget(block)", "pass"),
    Defect("a revived block stays in the free list", POOL, "share", "del self.cached[block]", "pass"),
    Defect("a shared block is not counted", POOL, "share", "self.refs[block] += 1", "self.refs[block] = 1"),
    Defect(
        "a block is published before it is full",
        KV,
        "_publish",
        "full = seq.tables[g], done // size",
        "full = seq.tables[g], done // size + 1",
    ),
    Defect("a block is published by its plan", KV, "_publish", "done = seq.num_computed", "done = seq.num_planned"),
    Defect("a hit covers the whole prompt", KV, "match", "(len(seq.tokens) - 1)", "len(seq.tokens)"),
    Defect("a hit ignores gaps in a full group", KV, "_shortened", "else range(end)", "else range(end - 1, end)"),
    Defect(
        "a hit ignores the window's start",
        KV,
        "_shortened",
        "range(end - 1, first - 1, -1)",
        "range(end - 1, first, -1)",
    ),
    Defect(
        "a window is cut one block too far",
        KV,
        "upkeep",
        "first_needed(done) // ",
        "first_needed(done + self.sizes[g]) // ",
    ),
    Defect("a trimmed block stays in the table", KV, "upkeep", "table[b] = NULL_BLOCK", "pass"),
    Defect(
        "a sibling's copy is forgotten",
        PLANNER,
        "_fan_out",
        "for source, target in copies]",
        "for source, target in ()]",
    ),
    Defect("a sibling's copy has no source held", KV, "fork", "self.pool.share([source])", "pass"),
    Defect("a sibling shares the partial block", KV, "fork", "table.append(target)", "table.append(source)"),
    Defect(
        "a sibling forks one block short", KV, "fork", "[: num_tokens // size]", "[: max(0, num_tokens // size - 1)]"
    ),
    Defect("blocks return while a step writes them", KV, "_give_back", "after_step <= self.last_retired", "True"),
    Defect("blocks return one step early", KV, "retire", "after <= step_id", "after <= step_id + 1"),
    Defect("blocks are grown one token late", KV, "_measure", "seq.limit = capacity if", "seq.limit = capacity + 1 if"),
    Defect("a preempted sequence keeps its row", PLANNER, "_vacate", "self._closes.append(seq.row)", "pass"),
    Defect("a preempted sequence keeps its blocks", PLANNER, "_vacate", "self.kv.release(seq)", "seq.tables = []"),
    Defect("admission forgets the budget used", PLANNER, "_admit", "budget -= sum(step.num_query)", "pass"),
    Defect("a chunk forgets the budget used", PLANNER, "_make_room", "budget -= n", "pass"),
    Defect("a chunk samples one token early", PLANNER, "_add_chunk", "+ n == len(", "+ n >= -1 + len("),
    Defect("a chunk is counted twice", settle, "settle", "seq.num_computed += n", "seq.num_computed += n + 1"),
    Defect("rejected drafts count as computed", settle, "_settle_sampled", "computed - seq.num_computed - query", "0"),
    Defect(
        "a result of no epoch is taken",
        settle,
        "_places",
        "for key in zip(ids, epochs",
        "for key in zip(ids, [1] * len(ids)",
    ),
    Defect(
        "results are matched by row order",
        settle,
        "_places",
        "ids == result.seq_ids",
        "len(ids) == len(result.seq_ids)",
    ),
    Defect(
        "prompt logprobs read the cache",
        admission.Door,
        "match",
        "seq.request.sampling.skip_reading_prefix_cache",
        "False",
    ),
    Defect(
        "prompt logprobs are told twice",
        settle,
        "_add_prompt_logprobs",
        "position >= seq.num_prompt_logprobs",
        "True",
    ),
    Defect("followers die with their leader", PLANNER, "finish", "self._queue_family(followers)", "pass"),
    Defect("the end by length is missed", settle, "_append", "if len(seq.tokens) >= seq.max_len", "if False"),
    Defect("min_tokens is counted one too far", settle, "_append", "num_output > seq", "num_output - 1 > seq"),
    Defect("preemption takes the best", PLANNER, "_free_blocks", "max(self.running()", "min(self.running()"),
]


@contextlib.contextmanager
def seeded(defect: Defect) -> Iterator[None]:
    """The defect is in place inside."""
    original = getattr(defect.owner, defect.function)
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(defect.right) >= 1, f"{defect.name}: {defect.right!r} is not in {defect.function} any more"
    namespace: dict[str, object] = {}
    module = sys.modules[original.__module__]
    exec(compile(source.replace(defect.right, defect.wrong), defect.name, "exec"), vars(module), namespace)
    holders = [defect.owner]
    if defect.function == "settle":
        holders.append(core)  # why: it was imported by name
    for holder in holders:
        setattr(holder, defect.function, namespace[defect.function])
    try:
        yield
    finally:
        for holder in holders:
            setattr(holder, defect.function, original)
