"""The step loop: ask for a plan, hand it over, take in the oldest result, tell the front.

    add / abort ─▶ scheduler.plan ─▶ executor.submit ─▶ (in flight, run_ahead + 1 at most) ─▶ executor.collect ─▶ settle

For: one engine, driven by calls of `step()` from one thread. Does not know: torch, texts, HTTP, who carries the plans.
Invariants: every sequence that was added ends in exactly one update with a finish_reason; a failing executor ends the
sequences it held with the cause, and never hangs the loop; when nothing is left to do, the blocks are checked.
Called by: assembly, entrypoints.
"""

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Items

from vllm.engine.leisure import Leisure
from vllm.engine.settle import quiet_update, settle
from vllm.engine.stats import EngineStats
from vllm.errors import ValidationError
from vllm.kv.manager import KVManager
from vllm.protocol.events import (
    Event,
    RequestAdded,
    SequenceFinished,
    SequencePreempted,
    SequenceUpdate,
    StepPlanned,
    StepSettled,
)
from vllm.protocol.executor import Executor
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request
from vllm.protocol.seams import Observer, Resource
from vllm.protocol.sequence import Sequence, Status
from vllm.scheduler.flight import InFlight
from vllm.scheduler.scheduler import Scheduler
from vllm.util.clock import SYSTEM, Clock

CHECK_EVERY = 60.0
"""Seconds between full counts of an idle engine's blocks."""


class Engine:
    """Requests in, SequenceUpdates out."""

    def __init__(
        self,
        scheduler_plan: SchedulerPlan,
        kv_plan: KVPlan,
        executor: Executor,
        observers: Items[Observer] = (),
        resources: Items[Resource] = (),
        clock: Clock = SYSTEM,
    ) -> None:
        self.plan = scheduler_plan
        self.kv = KVManager(kv_plan, scheduler_plan.enable_prefix_caching)
        self.scheduler = Scheduler(scheduler_plan, self.kv, resources)
        self._executor = executor
        self._observers = list(observers)
        self._clock = clock
        self._live: dict[str, list[Sequence]] = {}
        self._flights: deque[InFlight] = deque()
        self._outbox: list[SequenceUpdate] = []
        self._num_steps = self._num_query = self._num_sampled = 0
        self.num_added = 0
        """Requests that came, refused ones included."""
        self._closed = False
        self._check_at = 0.0
        self._leisure = Leisure(scheduler_plan, self.scheduler.budget)

    # -- requests ------------------------------------------------------------------------------------------------

    def add(self, request: Request, emitted: Mapping[int, Items[int]] | None = None) -> None:
        """Queue a request. ValueError when its id is in use, or when it cannot fit even alone (naming what fits).

        `emitted` resumes a request after a restart: sibling index -> tokens it has already given. Only the siblings
        named there are resumed; the others have ended before.
        """
        assert not self._closed, "the engine is closed"
        self.num_added += 1
        if request.request_id in self._live:
            raise ValidationError(f"request_id {request.request_id!r} is in use by a request that has not finished.")
        if request.prompt_len < 1:
            raise ValidationError("the prompt has no tokens; it must have at least one.", field="prompt")
        if request.prompt_len >= request.max_len:
            raise ValidationError(
                f"the prompt has {request.prompt_len} tokens, which leaves no room for output within "
                f"{request.max_len}; it may have {request.max_len - 1} at most.",
                field="prompt",
            )
        self.scheduler.door.check_fits(request.max_len)
        wanted = {i: () for i in range(request.sampling.n)} if emitted is None else emitted
        siblings = [Sequence(request, i, self.scheduler.next_seq_id(), done) for i, done in sorted(wanted.items())]
        assert all(len(seq.tokens) < seq.max_len for seq in siblings), "a sequence that has ended cannot be resumed"
        if not siblings:
            return
        self._live[request.request_id] = siblings
        self.scheduler.add(siblings)
        if self._observers:
            now = self._clock.monotonic()
            self._tell(RequestAdded(request.request_id, request.prompt_len, len(siblings), now))

    def abort(self, request_id: str, index: int | None = None) -> int:
        """End sibling `index` of a request, or all of them; each says so in an update of the next `step()`.

        Returns how many ended; a request that is not known, or has just finished, is 0 and no error.
        """
        ended = [seq for seq in self._live.get(request_id, ()) if index is None or seq.index == index]
        # why: followers first, so that none of them is promoted to be ended a moment later.
        self._end(ended[::-1], "abort")
        return len(ended)

    def _end(self, ended: Items[Sequence], reason: str, error: str | None = None) -> None:
        """These sequences end without a token; the news go out with the next step."""
        now = self._clock.monotonic()
        for seq in ended:
            self._outbox.append(quiet_update(seq, reason, now, error))
            for leader in self._live[seq.request_id]:
                if seq in leader.followers:
                    self.scheduler.drop_follower(leader, seq)
        self.scheduler.finish([seq for seq in ended if seq.status is not Status.FINISHED])
        self._forget(ended, reason, now)

    def _forget(self, ended: Items[Sequence], reason: str, now: float) -> None:
        for seq in ended:
            siblings = self._live[seq.request_id]
            siblings.remove(seq)
            if not siblings:
                del self._live[seq.request_id]
            if self._observers:
                self._tell(_finished(seq, reason, now))

    # -- the loop ------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether `step()` has anything to do or to say."""
        return bool(self._live or self._flights or self._outbox)

    def step(self) -> list[SequenceUpdate]:
        """Plan and submit one step, take in the oldest result if enough are in flight, and return the news."""
        assert not self._closed, "the engine is closed"
        planned = self._submit()
        if self._flights and (not planned or len(self._flights) > self.plan.run_ahead):
            self._collect()
        elif not planned and self._live and not self._waits_for_features():
            self._give_up(RuntimeError("sequences wait and no step can be planned: a bug of the scheduler"))
        if not self._live and not self._flights:
            self._check_idle()
        updates, self._outbox = self._outbox, []
        return updates

    def _check_idle(self) -> None:
        """Nothing is left to do: nobody may hold anything; now and then every account is counted again."""
        self.kv.check_idle()
        now = self._clock.monotonic()
        # why: counting all of a large pool takes tens of milliseconds, too much for every lonely request's last token.
        if now >= self._check_at:
            self._check_at = now + CHECK_EVERY
            self.check()

    def _submit(self) -> bool:
        """Hand the next plan to the executor; False when there is none."""
        began = now = self._clock.monotonic()
        made = self.scheduler.plan(now)
        if self._observers:
            for seq in self.scheduler.preempted:
                self._tell(SequencePreempted(seq.request_id, seq.index, now))
        if made is None:
            return False
        plan, flight = made
        self._flights.append(flight)
        self._num_steps += 1
        self._num_query += flight.num_tokens
        if self._observers:
            self._tell(StepPlanned(plan, now))
        try:
            self._executor.submit(plan)
        except Exception as cause:
            self._flights.pop()
            self._give_up(cause)
        self._leisure.submitted(began, self._clock.monotonic(), is_alone=len(self._flights) == 1)
        return True

    def _collect(self) -> None:
        """Take in the result of the oldest step in flight."""
        flight = self._flights.popleft()
        try:
            result = self._executor.collect()
        except Exception as cause:
            self._give_up(cause)
            return
        now = self._clock.monotonic()
        self._leisure.collected(now)
        settled = settle(flight, result, self.kv, now)
        self.scheduler.budget.observe(flight.num_tokens, result.seconds)
        self._outbox += settled.updates
        self._num_sampled += settled.num_tokens
        if settled.ended:
            self.scheduler.finish(settled.ended)
            reasons = {(u.request_id, u.index): u.finish_reason for u in settled.updates if u.finish_reason}
            for seq in settled.ended:
                self._forget([seq], reasons[seq.request_id, seq.index], now)
        if self._observers:
            s = self.scheduler
            self._tell(
                StepSettled(
                    *(flight.step_id, flight.num_tokens, settled.num_tokens, self.num_running, len(s.waiting)),
                    *(self.kv.usage, result.seconds, now),
                )
            )

    def _give_up(self, cause: Exception) -> None:
        """The executor failed: everybody who had a row or a step in flight ends with the cause; the waiting go on."""
        while self._flights:
            # why: later plans were made on the failed one; their results mean nothing, but must not stay in the pipe.
            self._flights.popleft()
            try:
                self._executor.collect()
            except Exception:
                continue
        self.kv.retire(self.scheduler.last_step)
        running = self.scheduler.running()
        lost = running or [seq for siblings in self._live.values() for seq in siblings]
        text = f"{type(cause).__name__}: {cause}"
        self._end(lost, "error", text)

    def _waits_for_features(self) -> bool:
        """Whether a resource of a feature may be what everybody waits for."""
        return any(seq.resources for siblings in self._live.values() for seq in siblings)

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer.on(event)

    # -- the rest ------------------------------------------------------------------------------------------------

    @property
    def num_running(self) -> int:
        """Sequences that have a row."""
        return len(self.scheduler.decoding) + len(self.scheduler.prefilling)

    @property
    def num_waiting(self) -> int:
        """Sequences that have none."""
        return sum(map(len, self._live.values())) - self.num_running

    def leisure(self) -> float:
        """Seconds for which the device needs no new plan: who comes meanwhile is part of that plan."""
        if len(self._flights) != 1:
            return 0.0
        return self._leisure.left(self._flights[0].num_tokens, self._clock.monotonic())

    def prepare(self) -> bool:
        """While nothing is to be done: let a piece of what makes later steps faster be done. False: nothing is left."""
        assert not self.has_work, "there is work to do"
        tried = self._executor.prepare()
        if tried is not None:
            self.scheduler.budget.observe(*tried)
        return tried is not None

    def watch(self, observer: Observer) -> None:
        """From now on `observer` hears what happens."""
        self._observers.append(observer)

    def live(self) -> Items[Items[Sequence]]:
        """The siblings of every request that has not ended, oldest request first; not to be changed."""
        return list(self._live.values())

    def stats(self) -> EngineStats:
        """A snapshot."""
        return EngineStats(
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            kv_usage=self.kv.usage,
            num_prefix_queried=self.kv.num_queried,
            num_prefix_hit=self.kv.num_hit,
            num_preempted=self.scheduler.num_preempted,
            num_steps=self._num_steps,
            num_query_tokens=self._num_query,
            num_sampled_tokens=self._num_sampled,
            num_waiting_tokens=self.scheduler.waiting.num_tokens,
            num_free_rows=len(self.scheduler.rows),
            num_added=self.num_added,
        )

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix; sequences that run are not disturbed."""
        self.kv.reset()

    def vacate(self) -> None:
        """Forget all that is in the cache. Sequences that run keep their tokens and will be computed again."""
        while self._flights:
            self._collect()
        self.scheduler.preempt_all()
        self.kv.retire(self.scheduler.last_step)
        self.kv.reset()

    def release(self) -> None:
        """Close the executor, whose memory comes back; only after `vacate`. No step until `use`."""
        assert not self._flights and not self.scheduler.running(), "the executor still holds sequences"
        self._executor.close()

    def use(self, executor: Executor) -> None:
        """From now on another executor, with an empty cache, carries the plans. Only after `release`."""
        self._executor = executor

    @property
    def executor(self) -> Executor:
        """Who carries the plans now."""
        return self._executor

    def check(self) -> None:
        """Count rows and blocks again; raises AssertionError where the books are wrong."""
        self.scheduler.check()

    def close(self) -> None:
        """End every request and close the executor. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._live.clear()
            self._flights.clear()
            self._executor.close()


def _finished(seq: Sequence, reason: str, now: float) -> SequenceFinished:
    return SequenceFinished(
        request_id=seq.request_id,
        index=seq.index,
        finish_reason=reason,
        num_prompt_tokens=seq.prompt_len,
        num_output_tokens=len(seq.tokens) - seq.prompt_len,
        num_cached_tokens=seq.num_cached_tokens,
        arrival=seq.arrival,
        scheduled_at=seq.scheduled_at,
        at=now,
    )
