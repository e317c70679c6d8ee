"""Phrasings by section. In the data file `\\n` is a line break and `(a|b|)` stands for one of its parts."""

import functools
import random
import re

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import pick

ALTERNATIVES = re.compile(r"\(([^()]*\|[^()]*)\)")


@functools.cache
def phrasings(section: str) -> list[str]:
    """All phrasings of one section, e.g. `capital.en.train`, alternatives not yet chosen."""
    return [line.replace("\\n", "\n") for line in sections("phrasings.txt")[section]]


def choose(rng: random.Random, text: str) -> str:
    """One part of each group of alternatives."""
    if "|" not in text:
        return text
    return ALTERNATIVES.sub(lambda m: pick(rng, m.group(1).split("|")), text)


def phrase(rng: random.Random, section: str, **values: object) -> str:
    """One phrasing, filled in. Plain replacement: the values may hold braces of their own."""
    text = choose(rng, pick(rng, phrasings(section)))
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def styled(rng: random.Random, text: str) -> str:
    """Now and then as people type: no final mark, a small first letter, or no capital letter at all."""
    draw = rng.random()
    if draw < 0.08 and text[-1] in "?.？。":
        return text[:-1]
    if draw < 0.14 and text[0].isupper() and text[1:2].islower():
        return text[0].lower() + text[1:]
    return text.lower() if draw < 0.17 else text
