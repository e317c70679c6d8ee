"""One token stream of a request, as the host sees it: the unit of scheduling.

For: the facts that scheduler, kv and engine share about a sequence. Does not know: torch, or what a token means.

    position   0 ............ num_computed .......... num_planned ........... limit
    KV         settled: known to be there | in flight (upper bound) | blocks ready, may be planned

Invariants: outside a step in flight `num_planned == num_computed`; a sequence without a row holds no blocks;
`num_computed` never counts a token that has not come back to the host. Called by: kv, scheduler, engine.
"""

import sys
from collections.abc import Sequence as Items
from enum import Enum, auto
from typing import Protocol

from vllm.protocol.request import Request

NEVER = sys.maxsize


class Claimed(Protocol):
    """Whatever a sequence holds beside blocks and a row (see `seams.Resource`)."""

    def reserve(self, seq: "Sequence", num_tokens: int) -> bool: ...

    def release(self, seq: "Sequence") -> None: ...


class Status(Enum):
    """Where a sequence stands."""

    WAITING = auto()
    """No row, no blocks: new, or preempted (then tokens may still be in flight)."""
    RUNNING = auto()
    FINISHED = auto()


class Sequence:
    """See the module's drawing. Mutable; owned by one engine."""

    __slots__ = (
        "arrival",
        "epoch",
        "followers",
        "index",
        "keys",
        "last_step",
        "limit",
        "max_len",
        "num_cached_tokens",
        "num_computed",
        "num_planned",
        "num_prompt_logprobs",
        "prompt_len",
        "publish_at",
        "published",
        "rank",
        "repetition",
        "request",
        "request_id",
        "resources",
        "row",
        "scheduled_at",
        "seed",
        "seq_id",
        "status",
        "stop_ids",
        "tables",
        "ticket",
        "tokens",
        "trimmed",
    )

    def __init__(self, request: Request, index: int, seq_id: int, emitted: Items[int] = ()) -> None:
        """`emitted` are tokens this sequence already gave before a restart; they are not given again."""
        self.request = request
        self.request_id = request.request_id
        self.index = index
        self.seq_id = seq_id
        self.arrival = request.arrival
        asked = request.sampling.repetition_detection
        self.repetition = asked if asked is not None and asked.max_pattern_size else None
        self.seed = request.seeds[index]
        self.max_len = request.max_len
        self.stop_ids = request.stop_ids
        self.tokens = request.prompt_token_ids()
        self.prompt_len = len(self.tokens)
        self.tokens.extend(emitted)
        self.status = Status.WAITING
        self.epoch = 0
        """Counts admissions; a result of another epoch is not for us."""
        self.row = -1
        self.num_computed = 0
        self.num_planned = 0
        self.last_step = -1
        """The last step that may write its blocks."""
        self.tables: list[list[int]] = []
        """Per KV group: block ids from position 0 on."""
        self.limit = 0
        """Tokens that its blocks can hold and its length allows; up to here a decode needs no look at it."""
        self.keys: list[bytes] = []
        """Chained content keys, one per span of the smallest block size, as far as they were needed."""
        self.published: list[int] = []
        """Per KV group: leading blocks already offered to the prefix cache."""
        self.trimmed: list[int] = []
        """Per KV group: leading blocks given back because a window has passed them."""
        self.publish_at = NEVER
        """num_computed at which the kv manager has something to publish or to trim."""
        self.num_cached_tokens = 0
        self.num_prompt_logprobs = 1
        """The first prompt position whose log-probabilities have not been delivered (position 0 has none)."""
        self.followers: list[Sequence] = []
        """Siblings that start from this sequence's prompt once its last chunk is planned."""
        self.resources: list[Claimed] = []
        self.rank: tuple[float, ...] = ()
        """Order of service; smaller is first. Set by the policy."""
        self.ticket = -1
        """Place in the waiting queue, -1 when not queued."""
        self.scheduled_at = 0.0

    def __repr__(self) -> str:
        return (
            f"Sequence({self.request.request_id}#{self.index} {self.status.name} len={len(self.tokens)} "
            f"computed={self.num_computed} planned={self.num_planned} row={self.row})"
        )
