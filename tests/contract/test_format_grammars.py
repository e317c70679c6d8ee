"""What a format's grammar makes a model write is what its parser reads as calls of the tools, with arguments of their
schemas."""

import json
import random

import numpy as np
import pytest

from vllm.entrypoints.constraint import able_to_call, constrain
from vllm.entrypoints.turn import ToolRules, Turn
from vllm.features.structured_output.compiler import Compiler
from vllm.features.structured_output.host import StructuredOutput
from vllm.features.structured_output.source import source_of
from vllm.formats.choose import catalogue, named
from vllm.formats.format import Format
from vllm.formats.parser import parse
from vllm.tokenizer.load import load

WORDS = {"folder": "vllm/builtin", "num_logits": 6144}
COLOURS = ["red", "dark blue", 'q"uote']
PAINT = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": COLOURS},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "wet": {"type": "boolean"},
        "sizes": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2},
    },
    "required": ["count"],
}
NOTE = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [
    {"type": "function", "function": {"name": "paint_it", "strict": True, "parameters": PAINT}},
    {"type": "function", "function": {"name": "now", "strict": True}},
]
HAVING = [name for name in catalogue.names() if named(name).tools is not None]


@pytest.fixture(scope="module")
def tokenizer():
    return load("vllm/builtin")


@pytest.fixture(scope="module")
def compiler():
    return Compiler(**WORDS)


def allowed_by(matcher) -> list[int]:
    """Tokens that may come next, but for those that end a text."""
    mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    assert not matcher.is_error(), matcher.get_error()
    return [i for i in np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist() if i not in (0, 2)]


def written(compiler, tokenizer, source, seed: int, steps: int = 400) -> str:
    """A random text that the grammar allows; "" when it did not end in time."""
    rng, ids, matcher = random.Random(seed), [], compiler.matcher(source)
    for _ in range(steps):
        allowed = allowed_by(matcher)
        if matcher.is_stopped() or (matcher.is_accepting() and rng.random() < 0.3):
            return tokenizer.decode(ids, skip_special_tokens=False)
        ids.append(rng.choice(allowed))
        assert matcher.consume_token(ids[-1])
    return ""


def follows(name: str, arguments: dict) -> bool:
    """Whether a call follows its tool's schema."""
    if name == "now":
        return arguments == {}
    colour, count, sizes = arguments.get("colour", "red"), arguments["count"], arguments.get("sizes", [])
    right = (
        name == "paint_it"
        and set(arguments) <= set(PAINT["properties"])
        and isinstance(arguments.get("wet", True), bool)
    )
    return right and colour in COLOURS and type(count) is int and 0 <= count <= 99 and set(sizes) <= {1, 2}


def constrained(form: Format, choice, tools, tokenizer):
    literal = StructuredOutput(tokenizer, WORDS).literal
    turn = able_to_call(Turn.of(form, ToolRules.of(tools, choice), "", tokenizer))
    made = constrain(turn, None, literal)
    assert made is not None
    return turn, source_of(made, literal)


@pytest.mark.parametrize("name", [*HAVING, "nothing"])
def test_made_calls_are_read(compiler, tokenizer, name):
    form = Format() if name == "nothing" else named(name)
    turn, source = constrained(form, "required", TOOLS, tokenizer)
    num_read = 0
    for seed in range(6):
        text = written(compiler, tokenizer, source, seed)
        answer = parse(turn.format, text, turn.rules.tools)
        assert answer.text.strip() == "" and bool(answer.calls) == bool(text), text
        for call in answer.calls:
            assert call.is_whole and follows(call.name, json.loads(call.arguments)), text
        num_read += len(answer.calls)
    assert num_read >= 4


@pytest.mark.parametrize("name", HAVING)
def test_free_text_of_an_argument(compiler, tokenizer, name):
    """A string without bounds: what the grammar lets through up to any point is one call with that text so far."""
    form = named(name)
    tool = {"type": "function", "function": {"name": "note", "parameters": NOTE}}
    turn, source = constrained(form, {"type": "function", "function": {"name": "note"}}, [tool], tokenizer)
    matcher, rng, ids = compiler.matcher(source), random.Random(name), []
    for _ in range(120):
        allowed = allowed_by(matcher)
        if not allowed:
            break
        ids.append(rng.choice(allowed))
        assert matcher.consume_token(ids[-1])
    text = tokenizer.decode(ids, skip_special_tokens=False)
    answer = parse(turn.format, text, turn.rules.tools)
    assert [call.name for call in answer.calls] == ["note"], text


@pytest.mark.parametrize("name", HAVING)
def test_strict_tools_leave_text_free(compiler, tokenizer, name):
    """With strict tools and a choice, text is allowed, and what is read as a call follows its schema."""
    form = named(name)
    turn, source = constrained(form, "auto", TOOLS, tokenizer)
    matcher = compiler.matcher(source)
    hello = tokenizer.encode("Hello there.", add_special_tokens=False)
    assert matcher.consume_tokens(hello) and matcher.is_accepting()
    for seed in range(3):
        answer = parse(turn.format, written(compiler, tokenizer, source, seed), turn.rules.tools)
        for call in answer.calls:
            assert call.is_whole and follows(call.name, json.loads(call.arguments))
