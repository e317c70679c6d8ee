"""Phrasings by section, with the line breaks that the data file writes as `\\n`."""

import functools
import random

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import pick


@functools.cache
def phrasings(section: str) -> list[str]:
    """All phrasings of one section, e.g. `capital.en.train`."""
    return [line.replace("\\n", "\n") for line in sections("phrasings.txt")[section]]


def phrase(rng: random.Random, section: str, **values: object) -> str:
    """One phrasing, filled in. Plain replacement: the values may hold braces of their own."""
    text = pick(rng, phrasings(section))
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def styled(rng: random.Random, text: str) -> str:
    """Now and then as people type: no final mark, or a small first letter."""
    draw = rng.random()
    if draw < 0.08 and text[-1] in "?.？。":
        return text[:-1]
    if draw < 0.14 and text[0].isupper() and text[1:2].islower():
        return text[0].lower() + text[1:]
    return text
