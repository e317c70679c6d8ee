"""The journal: what is resumed after a death, and who is blamed for it."""

from vllm.engine.journal import Journal
from vllm.engine.wire import Abort, Add, Frames, frame
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request, TokenSpan
from vllm.sampling_params import SamplingParams


def request(name: str, n: int = 1) -> Request:
    params = SamplingParams(n=n, stop=["x"], logit_bias={"3": 1.5}, min_tokens=2)
    params.update_from_generation_config({"eos_token_id": [4, 5]}, 4)
    return Request(
        name, (TokenSpan((1, 2, 3)),), params, tuple(range(2**64 - n, 2**64)), 20, frozenset({4}), features={"a": [[1]]}
    )


def journal_of(*names: str) -> Journal:
    journal = Journal()
    for name in names:
        journal.open(request(name), lambda update: None)
    return journal


def due(journal: Journal) -> list[str]:
    return [entry.request.request_id for entry in journal.due()]


def lost(journal: Journal, from_outside: bool = False) -> list[str]:
    return [entry.request.request_id for entry in journal.lost(from_outside)]


def gives(journal: Journal, name: str) -> None:
    journal.note(SequenceUpdate(name, 0, [7]))


def test_a_resumed_request_is_the_same_with_what_it_gave():
    journal = Journal()
    journal.open(request("a", n=3), lambda update: None)
    assert due(journal) == ["a"]
    journal.note(SequenceUpdate("a", 0, [7, 8]))
    journal.note(SequenceUpdate("a", 1, [9], finish_reason="stop"))
    assert journal.note(SequenceUpdate("a", 1, [9])) is None  # what comes after the end is nothing
    assert lost(journal) == []
    [entry] = journal.due()
    frames = Frames()
    data = frame(Add(entry.request, entry.emitted)) + frame(Abort("a", 2))
    read = []
    for at in range(0, len(data), 7):
        frames.feed(data[at : at + 7])
        read += frames.commands()
    add, abort = read
    assert add.emitted == {0: [7, 8], 2: []}
    assert add.request == entry.request
    assert add.request.sampling.all_stop_token_ids == {4, 5}
    assert abort == Abort("a", 2)


def test_what_ends_is_not_resumed():
    journal = journal_of("a", "b", "c")
    due(journal)
    journal.note(SequenceUpdate("a", 0, [7], finish_reason="length"))
    journal.drop("b")
    assert "b" not in journal
    assert len(journal) == 1
    lost(journal)
    assert due(journal) == ["c"]
    assert due(journal) == []


def test_the_one_that_kills_is_failed_alone():
    journal = journal_of("bad", "b", "c")
    assert due(journal) == ["bad", "b", "c"]
    assert lost(journal) == []
    assert due(journal) == ["bad", "b", "c"]
    assert lost(journal) == []
    assert due(journal) == ["bad"]  # all are suspects now, and each goes alone
    assert due(journal) == []
    assert lost(journal) == ["bad"]
    assert due(journal) == ["b"]
    gives(journal, "b")
    assert due(journal) == ["c"]
    gives(journal, "c")
    assert lost(journal) == []
    assert due(journal) == ["b", "c"]


def test_a_request_that_goes_on_is_never_blamed():
    journal = journal_of("a")
    for _ in range(100):
        assert due(journal) == ["a"]
        gives(journal, "a")
        assert lost(journal) == []
    # an engine that dies before it had the request says nothing about it
    for _ in range(100):
        assert lost(journal) == []


def test_new_requests_wait_while_a_suspect_is_out():
    journal = journal_of("a")
    for _ in range(2):
        due(journal)
        lost(journal, from_outside=True)
    journal.open(request("new"), lambda update: None)
    assert due(journal) == ["a"]
    assert due(journal) == []
    gives(journal, "a")
    assert due(journal) == ["new"]


def test_patience_is_longer_with_signals_from_outside():
    journal = journal_of("a")
    deaths = []
    for _ in range(3):
        due(journal)
        deaths.append(lost(journal, from_outside=True))
    assert deaths == [[], [], ["a"]]


def test_kills_from_outside_that_met_others_too_are_not_laid_to_the_last_one_waiting():
    journal = journal_of("unlucky", "b")
    for _ in range(2):
        assert due(journal) == ["unlucky", "b"]
        assert lost(journal, from_outside=True) == []
    assert due(journal) == ["unlucky"]
    assert lost(journal, from_outside=True) == []  # alone for the first time
    assert due(journal) == ["unlucky"]
    gives(journal, "unlucky")
    assert due(journal) == ["b"]
