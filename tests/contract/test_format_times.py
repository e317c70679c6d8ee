"""Hostile answers cost no reader more than their length: what a model can be made to write must not stop a server."""

import itertools
import time

import pytest

from tests.contract.format_examples import EXAMPLES, TOOLS
from vllm.formats.choose import named
from vllm.formats.format import Tool
from vllm.formats.parser import Parser

TOOL_LIST = [Tool(name, parameters) for name, parameters in TOOLS.items()]
UNIQUE = sorted({repr(named(name)): name for name in reversed(sorted(EXAMPLES))}.values())
OFTEN = ("granite", "hermes", "llama4_pythonic", "qwen3_coder")
SHORT, TIMES, WORTH_S = 15_000, 4, 0.04
"""Characters; how many times as many are tried; what takes less is not compared."""


def seconds(name: str, text: str, piece: int) -> float:
    parser = Parser(named(name), TOOL_LIST)
    begin = time.process_time()
    for at in range(0, len(text), piece):
        parser.feed(text[at : at + piece])
    parser.finish()
    return time.process_time() - begin


def hostile(name: str):
    """(how a text begins, what is in it again and again)."""
    calls = [text for text, _, _, calls in EXAMPLES[name] if calls]
    longest = max(calls, key=len, default="")
    marks = named(name).markers
    units = ["\n", "{", "\\", *marks[:3], *(mark[:-1] for mark in marks[:2] if len(mark) > 1)]
    begins = "", "Hello", longest, longest[:-8], longest[: len(longest) * 2 // 3]
    return itertools.product(begins, units)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in UNIQUE]
)
def test_time_grows_no_faster_than_the_answer(name: str):
    for piece in (7, 10**9):
        for begin, unit in hostile(name):
            long = begin + unit * (SHORT * TIMES // len(unit))
            took = seconds(name, long, piece)
            if took < WORTH_S:
                continue
            short = begin + unit * (SHORT // len(unit))
            for _ in range(6):  # another program may have been in the way
                if took < 1.8 * TIMES * (base := seconds(name, short, piece)):
                    break
                took = seconds(name, long, piece)
            else:
                pytest.fail(f"{begin[-40:]!r}, then {unit!r}: {base:.3f} s, {TIMES} times as long {took:.3f} s")
