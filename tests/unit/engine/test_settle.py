"""Taking a result in: what is matched, cut, told and dropped."""

import pytest

from vllm.engine.settle import settle
from vllm.kv.groups import make_kv_plan
from vllm.kv.manager import KVManager
from vllm.protocol.kv import FullKV
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.sequence import Sequence, Status
from vllm.protocol.step import StepResult, TokenLogprobs
from vllm.sampling_params import SamplingParams
from vllm.scheduler.flight import InFlight

STOP = 40


def manager() -> KVManager:
    return KVManager(make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=50, block_size=4))


def running(kv: KVManager, seq_id: int, max_len: int = 20, **params: object) -> Sequence:
    """A sequence of 6 tokens whose prompt's last chunk is in flight."""
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    request = Request(f"r{seq_id}", (TokenSpan(tuple(range(6))),), sampling, (0,), max_len, frozenset({STOP}))
    seq = Sequence(request, 0, seq_id)
    seq.status, seq.epoch, seq.row = Status.RUNNING, 1, seq_id
    kv.open(seq, kv.no_hit())
    kv.grow(seq, 6)
    seq.num_planned, seq.last_step = 6, 0
    return seq


def in_flight(*seqs: Sequence) -> InFlight:
    return InFlight(0, list(seqs), [6] * len(seqs))


def test_a_result_is_matched_by_sequence_whatever_its_order() -> None:
    kv = manager()
    a, b = running(kv, 0), running(kv, 1)
    out = settle(in_flight(a, b), StepResult(0, [1, 0], [1, 1], [[8], [7]]), kv, 5.0)
    assert (a.tokens[6:], b.tokens[6:]) == ([7], [8])
    assert [(u.request_id, u.token_ids, u.emitted_at) for u in out.updates] == [("r0", [7], 5.0), ("r1", [8], 5.0)]
    assert (a.num_computed, a.num_planned, out.num_tokens) == (6, 6, 2)


def test_who_is_not_in_the_result_got_nothing_and_is_asked_again() -> None:
    kv = manager()
    a, b = running(kv, 0), running(kv, 1)
    out = settle(in_flight(a, b), StepResult(0, [1], [1], [[8]]), kv, 0.0)
    assert [u.request_id for u in out.updates] == ["r1"]
    assert (len(a.tokens), a.num_computed, a.num_planned) == (6, 5, 5), "its last token is computed once more"


def test_a_result_of_another_epoch_is_dropped() -> None:
    kv = manager()
    a = running(kv, 0)
    a.epoch = 2
    assert settle(in_flight(a), StepResult(0, [0], [1], [[8]]), kv, 0.0).updates == []


def test_a_finished_sequence_hears_nothing_more() -> None:
    kv = manager()
    a = running(kv, 0)
    a.status = Status.FINISHED
    assert settle(in_flight(a), StepResult(0, [0], [1], [[8]]), kv, 0.0).updates == []
    assert len(a.tokens) == 6


def test_a_preempted_sequence_keeps_its_token_and_nothing_is_computed() -> None:
    kv = manager()
    a = running(kv, 0)
    kv.release(a)
    a.status = Status.WAITING
    out = settle(in_flight(a), StepResult(0, [0], [1], [[8]]), kv, 0.0)
    assert out.updates[0].token_ids == [8] and a.tokens[6:] == [8] and a.num_computed == 0


@pytest.mark.parametrize(
    ("new", "params", "max_len", "kept", "reason"),
    [
        ([7, STOP, 9], {}, 20, [7, STOP], "stop"),
        ([7, 8, 9], {}, 8, [7, 8], "length"),
        ([7, STOP], {}, 8, [7, STOP], "stop"),
        ([STOP, 7], {"min_tokens": 1}, 20, [STOP, 7], None),
        ([], {}, 20, [], None),
    ],
)
def test_tokens_behind_the_end_are_dropped(
    new: list[int], params: dict[str, object], max_len: int, kept: list[int], reason: str | None
) -> None:
    kv = manager()
    a = running(kv, 0, max_len, **params)
    found = [TokenLogprobs([t], [-1.0], [1]) for t in new]
    out = settle(in_flight(a), StepResult(0, [0], [1], [new], {0: found}), kv, 0.0)
    assert a.tokens[6:] == kept
    assert [u.token_ids for u in out.updates] == ([kept] if kept else [])
    assert [s.seq_id for s in out.ended] == ([0] if reason else [])
    for update in out.updates:
        assert update.finish_reason == reason and len(update.logprobs or ()) == len(kept)


def test_prompt_logprobs_may_begin_anywhere_and_are_told_once() -> None:
    kv = manager()
    a = running(kv, 0, prompt_logprobs=1)
    pieces = [(p, TokenLogprobs([p], [-1.0], [1])) for p in (3, 4, 5)]
    first = settle(InFlight(0, chunks=[(a, 5)]), StepResult(0, prompt_logprobs={0: pieces[:2]}), kv, 0.0)
    again = settle(InFlight(1, chunks=[(a, 0)]), StepResult(1, prompt_logprobs={0: pieces}), kv, 0.0)
    told = [[p for p, _ in u.prompt_logprobs] for u in first.updates + again.updates]
    assert told == [[3, 4], [5]]


def test_a_result_out_of_turn_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="step 7 came where 0"):
        settle(InFlight(0), StepResult(7), manager(), 0.0)


@pytest.mark.parametrize(
    ("given", "asked", "kept"),
    [
        ([3, 3, 3, 3], (1, 1, 3), 3),
        ([3, 4, 3, 4, 3], (4, 0, 2), 4),
        ([3, 4, 3, 4, 3], (4, 3, 2), None),  # no pattern that long
        ([1, 2, 3, 4, 5], (8, 1, 2), None),
        ([5, 5], (1, 1, 2), 2),  # the prompt ends in 5 too, and does not count
        ([3, 3, 3, 3], (0, 0, 0), None),
    ],
)
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_a_text_that_repeats_itself_ends(
    given: list[int], asked: tuple[int, int, int], kept: int | None, at_once: bool
):
    kv = manager()
    seq = running(kv, 0, repetition_detection=dict(zip(_DETECTION, asked, strict=True)))
    reasons: list[str | None] = []
    runs = [given] if at_once else [[token] for token in given]
    for step, run in enumerate(runs):
        if reasons[-1:] in ([], [None]):
            flight = InFlight(step, [seq], [6 if step == 0 else 1])
            reasons += [u.finish_reason for u in settle(flight, StepResult(step, [0], [1], [run]), kv, 5.0).updates]
    assert seq.tokens[6:] == given[:kept]
    assert reasons[-1] == (None if kept is None else "repetition")


def test_min_tokens_come_before_repetition_ends_a_text() -> None:
    kv = manager()
    seq = running(kv, 0, min_tokens=4, repetition_detection=dict(zip(_DETECTION, (1, 1, 2), strict=True)))
    (update,) = settle(in_flight(seq), StepResult(0, [0], [1], [[3, 3, 3, 3, 3]]), kv, 5.0).updates
    assert (update.token_ids, update.finish_reason) == ([3, 3, 3, 3], "repetition")


_DETECTION = ("max_pattern_size", "min_pattern_size", "min_count")
