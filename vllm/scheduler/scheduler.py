"""Continuous batching: which sequences get how many query tokens in the next step.

For: one StepPlan per call, planned without waiting for results. Does not know: executors, texts, clocks, torch.

    waiting ──admit──▶ prefilling ──last chunk planned──▶ decoding ──finish──▶ gone
       ▲                    └───────────── preempt ───────────┘
       └──────────────────────────────────────┘          siblings (n > 1) join decoding at their parent's last chunk

A plan is made in this order: blocks for those who run (best rank first; the worst ranks lose theirs), decodes, chunks,
admissions. Nothing is added for a sequence before its blocks are there, so a plan never has to be unmade.
Invariants: query tokens <= max_num_batched_tokens, rows <= max_num_seqs; a sequence whose tokens are in flight is not
admitted again; the best-ranked sequence always gets on. Called by: engine.
"""

from collections.abc import Sequence as Items

from vllm.kv.manager import Hit, KVManager
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.seams import Resource
from vllm.protocol.sequence import Sequence, Status
from vllm.protocol.step import RowOpen, StepPlan
from vllm.scheduler.admission import Door
from vllm.scheduler.budget import StepBudget
from vllm.scheduler.flight import InFlight
from vllm.scheduler.policy import Queue, make_policy
from vllm.scheduler.resources import Rows, claim, drop, extend
from vllm.util.arith import largest

DISPLACING = 8
"""Most of the waiting that one plan makes room for by preemption."""


class Scheduler:
    """One engine's scheduler. It owns the sequences' status, rows and place in line."""

    def __init__(self, plan: SchedulerPlan, kv: KVManager, resources: Items[Resource] = ()) -> None:
        self.limits = plan
        self.budget = StepBudget(plan)
        self.kv = kv
        self.door = Door(plan, kv)
        self.policy = make_policy(plan.policy)
        self.waiting = Queue()
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self.rows = Rows(plan.max_num_seqs)
        self.num_preempted = 0
        self.preempted: list[Sequence] = []
        """Sequences preempted by the last `plan`, for observers."""
        self._resources = resources
        self._next_step = 0
        self._next_seq = 0
        self._closes: list[int] = []
        self._copies: list[tuple[int, int, Sequence]] = []
        self._starved = False

    # -- coming and going ----------------------------------------------------------------------------------------

    @property
    def last_step(self) -> int:
        """The id of the newest plan, -1 before the first."""
        return self._next_step - 1

    def next_seq_id(self) -> int:
        """A fresh id."""
        self._next_seq += 1
        return self._next_seq - 1

    def add(self, siblings: Items[Sequence]) -> None:
        """Queue the sequences of one request; those without tokens of their own start from the first one's prompt."""
        for seq in siblings:
            seq.rank = self.policy.rank(seq)
            seq.resources = [r for r in self._resources if r.claims(seq.request)]
        fresh = [seq for seq in siblings if len(seq.tokens) == seq.prompt_len]
        for seq in siblings:
            if len(seq.tokens) > seq.prompt_len:
                self.waiting.push(seq)
        self._queue_family(fresh)

    def _queue_family(self, fresh: list[Sequence]) -> None:
        """Queue siblings that have no token yet: the first in line, the others behind it."""
        if fresh:
            fresh[0].followers = fresh[1:]
            self.waiting.push(fresh[0])

    def running(self) -> list[Sequence]:
        """Everybody who has a row."""
        return self.decoding + self.prefilling

    def preempt_all(self) -> None:
        """Everybody who has a row loses it and waits. Nothing may be in flight."""
        for seq in self.running():
            self._preempt(seq)

    def finish(self, ended: Items[Sequence]) -> None:
        """These have ended, for whatever reason: give back all they hold. Followers left behind go on alone."""
        for seq in ended:
            if seq.status is Status.RUNNING:
                self._vacate(seq)
            else:
                self.waiting.discard(seq)
            seq.status = Status.FINISHED
            self.policy.ended(seq)
            followers, seq.followers = seq.followers, []
            self._queue_family(followers)
        self._drop_idle()

    def _drop_idle(self) -> None:
        """Nobody stays among the running who is not."""
        self.decoding = [seq for seq in self.decoding if seq.status is Status.RUNNING]
        self.prefilling = [seq for seq in self.prefilling if seq.status is Status.RUNNING]

    def drop_follower(self, leader: Sequence, follower: Sequence) -> None:
        """`follower` ended before it ever ran."""
        leader.followers.remove(follower)
        follower.status = Status.FINISHED

    def _vacate(self, seq: Sequence) -> None:
        """Row, blocks and resources of a running sequence go back; blocks only after the last step that writes them."""
        self._closes.append(seq.row)
        self.rows.give_back(seq.row)
        seq.row = -1
        if self._copies:
            self.kv.copied([source for source, _, owner in self._copies if owner is seq], after_step=-1)
            self._copies = [copy for copy in self._copies if copy[2] is not seq]
        self.kv.release(seq)
        drop(seq)

    def _preempt(self, seq: Sequence) -> None:
        """`seq` loses its blocks and waits; tokens that are in flight will still be its own."""
        self._vacate(seq)
        seq.status = Status.WAITING
        self._drop_idle()
        self.waiting.push(seq)
        self.num_preempted += 1
        self.preempted.append(seq)

    # -- one plan ------------------------------------------------------------------------------------------------

    def plan(self, now: float = 0.0) -> tuple[StepPlan, InFlight] | None:
        """The next step, or None when nothing can be planned before a result is in."""
        self.preempted.clear()
        step = StepPlan(self._next_step)
        flight = InFlight(step.step_id)
        if self.policy.displaces:
            self._displace()
        usual = self.budget.usual_query(len(self.decoding))
        left = self.waiting.num_tokens + sum(len(seq.tokens) - seq.num_planned for seq in self.prefilling)
        budget = self.budget.tokens(len(self.decoding), len(self.waiting) + len(self.prefilling), left)
        queries, chunks = self._make_room(step, usual, budget)
        due, self._copies = self._copies, []
        self._add_decodes(step, flight, usual, queries)
        for seq, n in chunks:
            self._add_chunk(step, flight, seq, n)
        if not self._starved and self.waiting:
            self._admit(step, flight, budget, now)
        if not step.rows:
            self._copies = due
            return None
        self._next_step += 1
        step.closes, self._closes = self._closes, []
        step.copies = [(source, target) for source, target, _ in due]
        self.kv.copied([source for source, _, _ in due], step.step_id)
        flight.num_tokens = step.num_tokens
        return step, flight

    def _displace(self) -> None:
        """Preempt the worst for the first in line, where the policy says so and there is no room otherwise."""
        seen: list[Sequence] = []
        blocks = 0
        while len(seen) < DISPLACING and (head := self.waiting.peek()) is not None and not self.in_flight(head):
            if self.policy.victim(head, self.running()) is None:
                break
            self.waiting.discard(head)
            seen.append(head)
            hit = self.door.match(head)
            n = self.budget.chunk_len(len(head.tokens) - hit.length, self.limits.max_num_batched_tokens)
            blocks += self.door.demand(head, hit, n, self.prefilling)
            while self.kv.num_free + self.kv.num_deferred < blocks or len(self.rows) < len(seen):
                victim = self.policy.victim(head, self.running())
                if victim is None:
                    break
                self._preempt(victim)
        for head in seen:
            self.waiting.push(head)

    def in_flight(self, seq: Sequence) -> bool:
        """Whether a step with this sequence has not been settled."""
        return seq.last_step > self.kv.last_retired

    def _make_room(
        self, step: StepPlan, usual: int, budget: int
    ) -> tuple[dict[Sequence, int], list[tuple[Sequence, int]]]:
        """Blocks for everybody who runs, best rank first.

        Returns (query tokens of the decodes that were looked at, 0 to leave one out; chunks of prefills). `_starved`
        says whether somebody was left out for want of blocks.
        """
        self._starved = False
        queries: dict[Sequence, int] = {}
        chunks: list[tuple[Sequence, int]] = []
        needy = [(seq.rank, seq, True) for seq in self.decoding if seq.num_planned + usual > seq.limit]
        if not needy and not self.prefilling:
            return queries, chunks
        needy += [(seq.rank, seq, False) for seq in self.prefilling]
        budget -= usual * len(self.decoding)
        for _, seq, decodes in sorted(needy, key=lambda entry: entry[0]):
            if seq.status is not Status.RUNNING:
                continue  # preempted for the sake of a better one
            if decodes:
                self._room_for_decode(step, seq, usual, queries)
            elif n := self._room_for_chunk(step, seq, budget):
                chunks.append((seq, n))
                budget -= n
        return queries, chunks

    def _room_for_decode(self, step: StepPlan, seq: Sequence, usual: int, queries: dict[Sequence, int]) -> None:
        """Blocks for the next decode of a sequence that is near the end of its blocks or of its life."""
        # why: a step in flight gives at least one token, or the sequence will be asked again when it is settled.
        exact = self.limits.max_tokens_per_step == 1
        computed = seq.num_planned if exact else len(seq.tokens) - 1 + self.in_flight(seq)
        query = min(usual, seq.max_len - 1 - computed)
        upto = min(seq.num_planned + query, seq.max_len - 1)
        if query > 0 and self._grow(step, seq, upto):
            queries[seq] = query
        else:
            queries[seq] = 0
            self._starved |= query > 0

    def _grow(self, step: StepPlan, seq: Sequence, num_tokens: int) -> bool:
        """Blocks for `num_tokens` tokens of a running sequence, taken from worse ones if need be. False: not now."""
        added = self.kv.grow(seq, num_tokens)
        if added is None:
            if not self._free_blocks(seq, self.kv.missing(seq, num_tokens)):
                return False
            added = self.kv.grow(seq, num_tokens)
            assert added is not None, "blocks that were made free are gone"
        for g, blocks in added:
            step.new_blocks.append((seq.row, g, blocks))
        return True

    def _room_for_chunk(self, step: StepPlan, seq: Sequence, budget: int) -> int:
        """Blocks for the next chunk of known tokens; returns its length, 0 when it must wait."""
        n = self.budget.chunk_len(len(seq.tokens) - seq.num_planned, budget)
        if n <= 0 or not extend(seq, n):
            return 0
        if self._grow(step, seq, seq.num_planned + n):
            return n
        self._starved = True
        n = self._shrink(seq, n)
        return n if n > 0 and self._grow(step, seq, seq.num_planned + n) else 0

    def _shrink(self, seq: Sequence, n: int) -> int:
        """The longest chunk, n at most, that the free blocks hold."""
        if not self.limits.enable_chunked_prefill:
            return 0
        return largest(0, n, lambda m: self.kv.missing(seq, seq.num_planned + m) <= self.kv.num_free)

    def _free_blocks(self, seq: Sequence, need: int) -> bool:
        """Preempt worse-ranked sequences until `need` blocks are free. False: not now."""
        while self.kv.num_free < need:
            if self.kv.num_free + self.kv.num_deferred >= need:
                return False  # they come back with the steps in flight
            worst = max(self.running(), key=lambda s: s.rank)
            if worst is seq:
                return False
            self._preempt(worst)
        return True

    def _add_decodes(self, step: StepPlan, flight: InFlight, usual: int, queries: dict[Sequence, int]) -> None:
        """One run of query tokens for every decoding sequence that is not left out."""
        step_id, chosen = step.step_id, self.decoding.copy()
        step.num_query = [usual] * len(chosen)
        if queries:
            chosen = [seq for seq in chosen if queries.get(seq, usual)]
            step.num_query = [queries.get(seq, usual) for seq in chosen]
        step.rows = [seq.row for seq in chosen]
        step.samples = [True] * len(chosen)
        flight.sampled, flight.sampled_query = chosen, step.num_query.copy()
        for seq, query in zip(chosen, step.num_query, strict=True):
            seq.num_planned += query
            seq.last_step = step_id

    def _add_chunk(self, step: StepPlan, flight: InFlight, seq: Sequence, n: int) -> None:
        """`n` known tokens of `seq`, whose blocks are there; with the last of them it starts to decode."""
        last = seq.num_planned + n == len(seq.tokens)
        step.rows.append(seq.row)
        step.num_query.append(n)
        step.samples.append(last)
        seq.num_planned += n
        seq.last_step = step.step_id
        if not last:
            flight.chunks.append((seq, n))
            return
        flight.sampled.append(seq)
        flight.sampled_query.append(n)
        self.prefilling.remove(seq)
        self.decoding.append(seq)
        if seq.followers:
            self._fan_out(step, flight, seq)

    # -- admission -----------------------------------------------------------------------------------------------

    def _admit(self, step: StepPlan, flight: InFlight, budget: int, now: float) -> None:
        """Take in the waiting, in order, as far as rows, budget and blocks go."""
        budget -= sum(step.num_query)
        refused: list[Sequence] = []
        while budget > 0 and len(self.rows) and (seq := self.waiting.peek()) is not None:
            if self.in_flight(seq):
                break
            in_use = bool(self.prefilling or self.decoding or self.kv.num_deferred)
            if in_use and self.door.still_shut(seq, self._next_step):
                break
            hit = self.door.match(seq)
            n = self.budget.chunk_len(len(seq.tokens) - hit.length, budget)
            if not in_use:
                n = self.door.fit_alone(hit, n)
            elif not self.door.lets_in(seq, hit, n, self.prefilling, self._next_step):
                break
            if n <= 0:
                break
            self.waiting.discard(seq)
            if not claim(seq, n):
                refused.append(seq)  # why: a feature that is not ready must not hold up the others
                continue
            self._open(step, seq, hit, n, now)
            self._add_chunk(step, flight, seq, n)
            budget -= n
        for seq in refused:
            self.waiting.push(seq)

    def _open(self, step: StepPlan, seq: Sequence, hit: Hit, n: int, now: float) -> None:
        """Row, blocks and the worker's copy of what we know for an admitted sequence."""
        if seq.epoch == 0:
            seq.num_cached_tokens = hit.length
            seq.scheduled_at = now
        self.kv.open(seq, hit)
        grown = self.kv.grow(seq, hit.length + n)
        assert grown is not None, f"{seq!r} was let in without blocks"
        self._take_row(step, seq, hit.length)
        self.prefilling.append(seq)

    def _take_row(self, step: StepPlan, seq: Sequence, num_computed: int) -> None:
        seq.status = Status.RUNNING
        seq.epoch += 1
        seq.row = self.rows.take()
        self.policy.admitted(seq)
        request = seq.request
        step.opens.append(
            RowOpen(
                row=seq.row,
                seq_id=seq.seq_id,
                epoch=seq.epoch,
                token_ids=list(seq.tokens),
                prompt_len=seq.prompt_len,
                num_computed=num_computed,
                block_ids=[list(table) for table in seq.tables],
                sampling=request.sampling,
                seed=seq.seed,
                max_len=seq.max_len,
                stop_ids=seq.stop_ids,
                features=dict(request.features),
            )
        )

    def _fan_out(self, step: StepPlan, flight: InFlight, parent: Sequence) -> None:
        """Siblings of a prompt whose last chunk is in this plan: those who find a row and blocks sample with it."""
        waiting, parent.followers = parent.followers, []
        cost = self.kv.fork_cost(parent.prompt_len)
        while waiting and not self._starved and len(self.rows) and cost <= self.kv.num_free and claim(waiting[0], 0):
            child = waiting.pop(0)
            copies = self.kv.fork(parent, child, parent.prompt_len)
            self._copies += [(source, target, child) for source, target in copies]
            self._take_row(step, child, parent.prompt_len)
            child.num_cached_tokens, child.scheduled_at = parent.num_cached_tokens, parent.scheduled_at
            child.last_step = step.step_id
            step.fan_out.append((child.row, parent.row))
            flight.sampled.append(child)
            flight.sampled_query.append(parent.prompt_len)
            self.decoding.append(child)
        self._queue_family(waiting)

    # -- the books -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Rows, blocks and status agree; raises AssertionError."""
        running = self.running()
        self.rows.check(running)
        assert all(seq.status is Status.RUNNING and seq.ticket < 0 for seq in running), "a runner is not marked so"
        for seq in self.waiting:
            assert seq.status is Status.WAITING and seq.row < 0 and not seq.tables, f"{seq!r} waits and holds something"
        self.kv.check(running, (source for source, _, _ in self._copies))
