"""What a result means for the sequences of its step: new tokens, their end, and what the front hears of it.

For: ids, stop ids, lengths, counts. Does not know: texts and stop strings (the front finds those and sends an abort),
executors, the order of service. Invariants: a result is matched by (sequence, epoch); after a step that sampled, every
known token but the last is computed; tokens behind a sequence's end are dropped. Called by: engine.core.
"""

from dataclasses import dataclass, field

from vllm.kv.manager import KVManager
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.sequence import Sequence, Status
from vllm.protocol.step import StepResult, TokenLogprobs
from vllm.sampling_params import RepetitionDetectionParams
from vllm.scheduler.flight import InFlight

NOTHING: list[tuple[int, TokenLogprobs]] = []
"""Shared by all updates without prompt logprobs, never added to: 512 empty lists in every step wake the collector."""
RUNNING, FINISHED = Status.RUNNING, Status.FINISHED


@dataclass(slots=True)
class Settled:
    """What came of a step."""

    updates: list[SequenceUpdate] = field(default_factory=list)
    ended: list[Sequence] = field(default_factory=list)
    """Sequences that ended; they still hold their blocks and rows."""
    num_tokens: int = 0
    """New tokens."""


def settle(flight: InFlight, result: StepResult, kv: KVManager, now: float) -> Settled:
    """Take the result of `flight` in."""
    assert result.step_id == flight.step_id, f"result of step {result.step_id} came where {flight.step_id} was due"
    kv.retire(flight.step_id)
    for seq, n in flight.chunks:
        if seq.status is RUNNING:
            seq.num_computed += n
            if seq.num_computed >= seq.publish_at:
                kv.upkeep(seq)
    places = _places(flight, result)
    out = Settled()
    _settle_sampled(flight, result, places, kv, now, out)
    if result.logprobs:
        _add_logprobs(flight, result, places, out)
    if result.states:
        _add_states(flight, result, out)
    if result.prompt_logprobs:
        _add_prompt_logprobs(flight, result, out.updates, now)
    if result.failed:
        _fail(flight, result, out, now)
    return out


def _places(flight: InFlight, result: StepResult) -> list[int] | None:
    """Where each of `flight.sampled` is in the result, -1 if it is not; None when the orders are the same."""
    ids, epochs = [seq.seq_id for seq in flight.sampled], [seq.epoch for seq in flight.sampled]
    if ids == result.seq_ids and epochs == result.epochs:
        return None
    place = {key: i for i, key in enumerate(zip(result.seq_ids, result.epochs, strict=True))}
    return [place.get(key, -1) for key in zip(ids, epochs, strict=True)]


def _settle_sampled(
    flight: InFlight, result: StepResult, places: list[int] | None, kv: KVManager, now: float, out: Settled
) -> None:
    """The new tokens of everybody who sampled. This loop is most of what a step costs on the host."""
    tokens_of = result.tokens
    if places is not None:
        tokens_of = [tokens_of[at] if at >= 0 else [] for at in places]
    add_update, num_tokens = out.updates.append, 0
    for seq, query, new in zip(flight.sampled, flight.sampled_query, tokens_of, strict=True):
        status = seq.status
        if status is FINISHED:
            continue
        reason = None
        tokens = seq.tokens
        if len(new) == 1 and new[0] not in seq.stop_ids:
            tokens.append(new[0])
            if len(tokens) >= seq.max_len:
                reason = "length"
            elif seq.repetition is not None and _repeats(seq, seq.repetition):
                reason = "repetition"
        else:
            new, reason = _append(seq, new)
        if status is RUNNING:
            # why: a preempted sequence keeps its tokens, but nothing of it is computed any more.
            computed = len(tokens) - 1
            if computed - seq.num_computed != query:
                seq.num_planned += computed - seq.num_computed - query
            seq.num_computed = computed
            if computed >= seq.publish_at:
                kv.upkeep(seq)
        if new:
            num_tokens += len(new)
            cached, scheduled_at = seq.num_cached_tokens, seq.scheduled_at
            add_update(
                SequenceUpdate(seq.request_id, seq.index, new, None, NOTHING, reason, None, cached, scheduled_at, now)
            )
            if reason is not None:
                out.ended.append(seq)
                if reason == "stop" and new[-1] in (seq.request.sampling.stop_token_ids or ()):
                    out.updates[-1].stop_reason = new[-1]
    out.num_tokens = num_tokens


def _add_logprobs(flight: InFlight, result: StepResult, places: list[int] | None, out: Settled) -> None:
    """The log-probabilities of new tokens, for those who asked."""
    by_name = {(update.request_id, update.index): update for update in out.updates}
    for i, seq in enumerate(flight.sampled):
        found = result.logprobs.get(i if places is None else places[i])
        update = by_name.get((seq.request_id, seq.index))
        if found is not None and update is not None:
            update.logprobs = found[: len(update.token_ids)]


def _add_states(flight: InFlight, result: StepResult, out: Settled) -> None:
    """What heads made, with the token that was sampled beside it."""
    found = {(seq.request_id, seq.index): result.states.get(seq.seq_id) for seq in flight.sampled}
    for update in out.updates:
        update.states = found.get((update.request_id, update.index))


def _append(seq: Sequence, new: list[int]) -> tuple[list[int], str | None]:
    """Add tokens up to the first that ends the sequence; returns (those added, why it ended or None)."""
    for i, token in enumerate(new):
        seq.tokens.append(token)
        num_output = len(seq.tokens) - seq.prompt_len
        # why: before min_tokens a worker chooses an end only where a feature leaves it nothing else
        is_late = num_output > seq.request.sampling.min_tokens or "ends_early" in seq.request.features
        if token in seq.stop_ids and is_late:
            return new[: i + 1], "stop"
        if len(seq.tokens) >= seq.max_len:
            return new[: i + 1], "length"
        if seq.repetition is not None and _repeats(seq, seq.repetition):
            return new[: i + 1], "repetition"
    return new, None


def _repeats(seq: Sequence, asked: RepetitionDetectionParams) -> bool:
    """Whether the output ends in `min_count` copies of one pattern."""
    tokens, num_output = seq.tokens, len(seq.tokens) - seq.prompt_len
    if num_output < seq.request.sampling.min_tokens:
        return False
    most = min(asked.max_pattern_size, num_output // asked.min_count)
    for size in range(asked.min_pattern_size, most + 1):
        # why: one look at a token spares most sizes the copies
        if tokens[-1] == tokens[-1 - size]:
            tail = tokens[-size * asked.min_count :]
            if tail[size:] == tail[:-size]:
                return True
    return False


def _update_of(seq: Sequence, updates: list[SequenceUpdate], now: float) -> SequenceUpdate:
    """The update of `seq` among `updates`, added if there is none."""
    for update in updates:
        if update.index == seq.index and update.request_id == seq.request_id:
            return update
    updates.append(quiet_update(seq, None, now))
    return updates[-1]


def quiet_update(seq: Sequence, reason: str | None, now: float, error: str | None = None) -> SequenceUpdate:
    """An update without tokens."""
    return SequenceUpdate(
        seq.request_id,
        seq.index,
        [],
        finish_reason=reason,
        num_cached_tokens=seq.num_cached_tokens,
        scheduled_at=seq.scheduled_at,
        emitted_at=now,
        error=error,
    )


def _add_prompt_logprobs(flight: InFlight, result: StepResult, updates: list[SequenceUpdate], now: float) -> None:
    """Pieces for positions not delivered yet; a prompt computed again after a preemption repeats none."""
    for seq in flight.sequences():
        pieces = result.prompt_logprobs.get(seq.seq_id)
        if not pieces or seq.index != 0 or seq.status is FINISHED:
            continue
        fresh: list[tuple[int, TokenLogprobs]] = []
        for position, found in pieces:
            if position >= seq.num_prompt_logprobs:
                fresh.append((position, found))
                seq.num_prompt_logprobs = position + 1
        if fresh:
            _update_of(seq, updates, now).prompt_logprobs = fresh


def _fail(flight: InFlight, result: StepResult, out: Settled, now: float) -> None:
    """Sequences that failed alone in the worker end with its reason."""
    why = {(seq_id, epoch): text for seq_id, epoch, text in result.failed}
    for seq in flight.sequences():
        text = why.get((seq.seq_id, seq.epoch))
        if text is None or seq.status is FINISHED:
            continue
        update = _update_of(seq, out.updates, now)
        update.finish_reason, update.stop_reason, update.error = "error", None, text
        if seq not in out.ended:
            out.ended.append(seq)
