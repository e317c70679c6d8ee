"""Orders of service."""

import pytest

from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.sequence import Sequence
from vllm.sampling_params import SamplingParams
from vllm.scheduler.policy import BURST, Fair, Policy, Queue, make_policy


def sequence(seq_id: int, policy: Policy, **fields: object) -> Sequence:
    more = {"arrival": 0.0, "max_len": 110, **fields}
    request = Request(f"r{seq_id}", (TokenSpan((1,) * 100),), SamplingParams(), (0,), stop_ids=frozenset(), **more)  # type: ignore[arg-type]
    seq = Sequence(request, 0, seq_id)
    seq.rank = policy.rank(seq)
    return seq


def served(queue: Queue) -> list[int]:
    order = []
    while (seq := queue.peek()) is not None:
        queue.discard(seq)
        order.append(seq.seq_id)
    return order


def test_first_come_is_by_arrival_then_by_id() -> None:
    policy, queue = make_policy("fcfs"), Queue()
    for seq_id, arrival in ((0, 5.0), (1, 3.0), (2, 3.0)):
        queue.push(sequence(seq_id, policy, arrival=arrival, priority=-seq_id))
    assert served(queue) == [1, 2, 0]


def test_priority_is_smaller_first_and_displaces_only_the_less_urgent() -> None:
    policy, queue = make_policy("priority"), Queue()
    seqs = [sequence(i, policy, arrival=float(i), priority=p) for i, p in enumerate((1, 0, 1, -3))]
    for seq in seqs:
        queue.push(seq)
    assert served(queue) == [3, 1, 0, 2]
    assert policy.victim(seqs[1], [seqs[3], seqs[0]]) is seqs[0]
    assert policy.victim(seqs[0], [seqs[2]]) is None and policy.victim(seqs[0], []) is None


def test_a_discarded_sequence_is_not_served_and_can_come_back() -> None:
    policy, queue = make_policy("fcfs"), Queue()
    seqs = [sequence(i, policy) for i in range(3)]
    for seq in seqs:
        queue.push(seq)
    queue.discard(seqs[0])
    queue.discard(seqs[0])
    assert len(queue) == 2 and {s.seq_id for s in queue} == {1, 2} and queue.peek() is seqs[1]
    queue.push(seqs[0])
    assert served(queue) == [0, 1, 2] and len(queue) == 0


def test_fair_serves_a_quiet_tenant_before_the_rest_of_a_flood() -> None:
    policy, queue = make_policy("fair"), Queue()
    for i in range(10):
        queue.push(sequence(i, policy, tenant="loud"))
    for _ in range(3):
        first = queue.peek()
        assert first is not None
        queue.discard(first)
        policy.admitted(first)
    queue.push(sequence(10, policy, tenant="quiet", arrival=9.0))
    queue.push(sequence(11, policy, tenant="quiet", arrival=9.0))
    assert served(queue)[:3] == [10, 11, 3]


def test_fair_shares_are_even_by_tokens() -> None:
    policy, queue = Fair(), Queue()
    for i in range(40):
        queue.push(sequence(i, policy, tenant="short" if i % 2 else "long", max_len=110 if i % 2 else 400))
    tokens = {"short": 0, "long": 0}
    for seq_id in served(queue)[:20]:
        tokens["short" if seq_id % 2 else "long"] += 110 if seq_id % 2 else 164
    assert abs(tokens["short"] - tokens["long"]) <= 200


def test_an_idle_tenant_saves_credit_for_a_small_burst_only() -> None:
    policy = Fair()
    busy = [sequence(i, policy, tenant="busy") for i in range(100)]
    policy.admitted(busy[-1])
    late = [sequence(100 + i, policy, tenant="late") for i in range(100)]
    assert sum(seq.rank[0] < busy[-1].rank[0] for seq in late) == BURST


def test_fair_takes_places_from_who_is_ahead_only() -> None:
    policy = Fair()
    loud = [sequence(i, policy, tenant="loud") for i in range(30)]
    for seq in loud:
        policy.admitted(seq)
    quiet = sequence(30, policy, tenant="quiet")
    assert policy.victim(quiet, loud) is loud[-1]
    assert policy.victim(quiet, loud[:1]) is None
    assert policy.victim(quiet, []) is None
    policy.admitted(quiet)
    assert policy.victim(sequence(31, policy, tenant="loud"), [*loud, quiet]) is None


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"fcfs, priority, fair.*'lifo'"):
        make_policy("lifo")
