"""A look at an engine: its sequences, its blocks and its last steps, as they are."""

from tests.unit.engine.test_core import drain, engine, request
from vllm.engine.glance import CACHED, FREE, HELD, SHARED, Glance
from vllm.engine.recorder import STEPS, Recorder
from vllm.engine.wire import Frames, Peek, frame


def test_sequences_blocks_and_steps():
    e, recorder = engine(enable_prefix_caching=True), Recorder()
    e.watch(recorder)
    empty = recorder.glance(e, 1.0)
    assert set(empty.cells) == {FREE} and not empty.steps and not empty.sequences
    e.add(request("a", prompt_len=9, max_len=20))
    e.step()
    e.add(request("b", prompt_len=9, max_len=20))
    e.add(request("c", prompt_len=30, max_len=40))
    e.step()
    e.step()
    looked = recorder.glance(e, 5.0)
    assert [(mark.request_id, mark.state) for mark in looked.sequences][:2] == [("a", "decode"), ("b", "decode")]
    assert looked.num_sequences == 3
    assert looked.sequences[1].num_cached == 8 and looked.sequences[0].num_output >= 2
    assert looked.cells.count(SHARED) == 2, "b shares the two whole blocks of the prompt of a"
    assert looked.num_held == looked.cells.count(SHARED) + looked.cells.count(HELD) and looked.num_blocks == 29
    assert [mark.step_id for mark in looked.steps] == sorted(mark.step_id for mark in looked.steps)
    assert sum(mark.num_sampled for mark in looked.steps) == sum(mark.num_output for mark in looked.sequences)
    drain(e)
    last = recorder.glance(e, 9.0)
    assert not last.sequences and last.num_held == 0
    assert last.num_cached == last.cells.count(CACHED) > 0


def test_only_the_last_steps_are_kept():
    e, recorder = engine(), Recorder()
    e.watch(recorder)
    for number in range(10):
        e.add(request(f"r{number}", prompt_len=4, max_len=60))
        drain(e)
    assert len(recorder.glance(e, 0.0).steps) == STEPS


def test_it_crosses_the_wire():
    e, recorder = engine(), Recorder()
    frames = Frames()
    frames.feed(frame(Peek()))
    assert [type(command) for command in frames.commands()] == [Peek]
    frames.feed(frame(recorder.glance(e, 2.0)))
    (message,) = frames.messages()
    assert isinstance(message, Glance) and message == recorder.glance(e, 2.0)
