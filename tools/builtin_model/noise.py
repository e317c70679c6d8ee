"""Words around a question that do not change its answer: the model has to learn what it may ignore.

Besides sentences people write, now and then random words of the vocabulary, so that no token is left untrained.
"""

import random

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import pick
from tools.builtin_model.lexicon import made_word, words
from tools.builtin_model.phrasings import choose
from tools.builtin_model.skills.plain import fill


def gibberish(rng: random.Random, language: str, most: int = 5) -> str:
    """A few random words."""
    count = 1 + int(rng.random() * most)
    return (" " if language == "en" else "").join(_word(rng, language) for _ in range(count))


def _word(rng: random.Random, language: str) -> str:
    return pick(rng, words("zh")) if language == "zh" else made_word(rng)


def _sentence(rng: random.Random, place: str, language: str) -> str:
    if rng.random() < 0.2:
        mark = pick(rng, (".", ":", ",")) if language == "en" else pick(rng, ("。", "：", "，"))
        return gibberish(rng, language) + (mark if place == "opening" else "." if language == "en" else "。")
    return fill(rng, choose(rng, pick(rng, sections("decoration.txt")[f"{place}.{language}"])), language)


def decorated(rng: random.Random, question: str, language: str, share: float = 0.4, opening_only: bool = False) -> str:
    """The question, with `share` of chance with something before it, behind it or both."""
    if rng.random() >= share:
        return question
    space = " " if language == "en" else ""
    draw = rng.random()
    if draw < 0.75 or opening_only:
        question = _sentence(rng, "opening", language) + space + question
    if draw > 0.6 and not opening_only:
        question = question + space + _sentence(rng, "closing", language)
    return question
