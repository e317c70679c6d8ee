"""Open vocabulary: every word of the data files, and words that no file has.

Copying must not be a list of known words, so names, keys and values also come from here. Words that only held-out
lines of the data files have are left out.
"""

import functools
import random
import re
import string

from tools.builtin_model.data_files import FOLDER, sections
from tools.builtin_model.documents import pick


def open_text() -> list[str]:
    """The lines of all data files, without the held-out sections."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        for heading, lines in sections(path.name).items():
            if "heldout" not in heading:
                found += lines
    return found + (FOLDER / "countries.tsv").read_text(encoding="utf-8").splitlines()


@functools.cache
def words(language: str) -> list[str]:
    """Every English word in lower case, or every Chinese character, of the open text."""
    text = "\n".join(open_text())
    if language == "zh":
        return sorted(set(re.findall(r"[\u4e00-\u9fff]", text)))
    return sorted({w.lower() for w in re.findall(r"[A-Za-z]{3,}", text)})


@functools.cache
def _syllables() -> list[str]:
    return sections("values.txt")["syllables"][0].split()


def made_word(rng: random.Random) -> str:
    """A word in lower case: a known one, two known ones spliced, syllables, or plain letters."""
    draw = rng.random()
    if draw < 0.35:
        return pick(rng, words("en"))
    if draw < 0.65:
        head, tail = pick(rng, words("en")), pick(rng, words("en"))
        return head[: 2 + int(rng.random() * 4)] + tail[-(2 + int(rng.random() * 4)) :]
    if draw < 0.85:
        return "".join(pick(rng, _syllables()) for _ in range(2 + int(rng.random() * 2)))
    return "".join(pick(rng, string.ascii_lowercase) for _ in range(3 + int(rng.random() * 5)))


def made_text(rng: random.Random, language: str, most: int = 3) -> str:
    """One to `most` made words, or one to twice as many Chinese characters."""
    if language == "zh":
        return "".join(pick(rng, words("zh")) for _ in range(1 + int(rng.random() * 2 * most)))
    return " ".join(made_word(rng) for _ in range(1 + int(rng.random() * most)))


def made_key(rng: random.Random) -> str:
    """A name for a field or parameter: one or two words."""
    return made_word(rng) if rng.random() < 0.6 else f"{made_word(rng)}_{made_word(rng)}"
