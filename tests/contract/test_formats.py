"""Every format reads what its family writes, and however the text is cut, the answer is the same."""

import json
import random

import pytest

from tests.contract.format_examples import EXAMPLES, TOOLS
from vllm.formats.choose import catalogue, named
from vllm.formats.events import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta, collect
from vllm.formats.format import Tool
from vllm.formats.parser import Parser, parse

TOOL_LIST = [Tool(name, parameters) for name, parameters in TOOLS.items()]


def new_id(name, index):
    return f"{name}-{index}"


def pieces(rng, text, longest):
    at = 0
    while at < len(text):
        size = rng.randint(1, longest)
        yield text[at : at + size]
        at += size


def streamed(form, cut, is_thinking):
    parser = Parser(form, TOOL_LIST, is_thinking, new_id)
    events = [event for piece in cut for event in parser.feed(piece)] + parser.finish()
    assert parser.finish() == []
    return events


def check_order(events):
    """The rules that events.py promises."""
    open_call, calls = None, 0
    for event in events:
        match event:
            case TextDelta(text) | ReasoningDelta(text):
                assert text and open_call is None
            case CallStart(index, _, name):
                assert open_call is None and index == calls and name
                open_call, calls = index, calls + 1
            case CallArguments(index, text):
                assert text and index == open_call
            case CallEnd(index):
                assert index == open_call
                open_call = None
    assert open_call is None


def starts_thinking(form):
    return form.reasoning is not None and form.reasoning.is_open


def test_every_format_has_examples():
    assert set(EXAMPLES) == set(catalogue.names())


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples(name):
    form = named(name)
    for text, reasoning, content, calls in EXAMPLES[name]:
        answer = parse(form, text, TOOL_LIST, starts_thinking(form), new_id)
        got = [(call.name, json.loads(call.arguments)) for call in answer.calls]
        assert (answer.reasoning, answer.text, got) == (reasoning, content, calls), text
        assert all(call.is_whole for call in answer.calls)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_any_cut_gives_the_same(name):
    form, rng = named(name), random.Random(name)
    texts = [example[0] for example in EXAMPLES[name]]
    # texts that end anywhere, that are glued together, and that are soup of the family's own marks
    texts += [text[: rng.randint(0, len(text))] for text in texts for _ in range(3)]
    texts += [rng.choice(texts) + rng.choice(("", "\n", "x")) + rng.choice(texts) for _ in range(10)]
    soup = [
        *form.markers,
        "{",
        "}",
        "[",
        "]",
        '"',
        '"name"',
        ":",
        ",",
        "\\",
        " ",
        "\n",
        "x",
        "now",
        "<",
        ">",
        "(",
        "=",
        ")",
    ]
    texts += ["".join(rng.choice(soup) for _ in range(rng.randint(1, 25))) for _ in range(60)]
    for text in texts:
        for is_thinking in (False, True):
            whole = parse(form, text, TOOL_LIST, is_thinking, new_id)
            for longest in (1, 3, 9):
                events = streamed(form, pieces(rng, text, longest), is_thinking)
                check_order(events)
                assert collect(events) == whole, text


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_calls_stay_text_where_there_are_no_tools(name):
    form = named(name)
    for text, reasoning, _, calls in EXAMPLES[name]:
        if "<think>So" in text:
            continue  # a call that ends a thought is a thought when calls are not read
        answer = parse(form, text, None, starts_thinking(form), new_id)
        assert answer.calls == []
        if form.main is None:
            assert answer.reasoning == reasoning
            assert not calls or any(name in answer.text for name, _ in calls), text
