"""Random values (names, dates, amounts ...) that texts, JSON records and tool calls speak of."""

import functools
import random
import string
from typing import Any

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import pick
from tools.builtin_model.lexicon import made_text, made_word
from tools.builtin_model.skills.plain import slots

OPTIONS = {"size", "unit", "level", "currency"}  # kinds that a schema may list as an enum
INTEGERS = {"int", "small", "age", "year"}


@functools.cache
def _lists(language: str) -> dict[str, list[str]]:
    """The kinds that have a list of values; what Chinese lacks it takes from English."""
    found = {} if language == "en" else dict(_lists("en"))
    for line in sections("values.txt")[language]:
        kind, words = line.split(": ", 1)
        found[kind] = words.split("|")
    return found


def made_name(rng: random.Random) -> str:
    """A name that nobody has met before."""
    return made_word(rng).capitalize()


def _digits(rng: random.Random, count: int) -> str:
    return "".join(pick(rng, string.digits) for _ in range(count))


MADE_SHARE = {"name": 0.3, "city": 0.2, "thing": 0.3, "phrase": 0.5, "title": 0.5, "message": 0.4, "room": 0.3}


def _text(rng: random.Random, kind: str, language: str, made: bool) -> str:
    """Words; for kinds that people fill freely a share is made up, so that copying is learned and not a list."""
    if kind == "made" or (made and rng.random() < MADE_SHARE.get(kind, 0.0)):
        text = made_text(rng, language, {"name": 1, "city": 1, "message": 5}.get(kind, 3))
        return text.capitalize() if kind in ("name", "city") or rng.random() < 0.2 else text
    if kind in ("name", "city", "job", "color", "hobby", "animal", "food"):
        return pick(rng, slots(language)[kind])
    if kind == "thing":
        return pick(rng, sections("words.txt")[language])
    if kind == "phrase":
        return (" " if language == "en" else "").join(rng.sample(sections("words.txt")[language], 2))
    return pick(rng, _lists(language)[kind])


def options(kind: str, language: str = "en") -> list[str]:
    """All values of a kind that has few."""
    return _lists(language)[kind]


def _number(rng: random.Random, kind: str) -> int | float:
    if kind == "int":
        return 1 + int(rng.random() * 10 ** (1 + int(rng.random() * 3)))
    if kind == "price":
        return round(1 + rng.random() * pick(rng, (9, 99, 999)), pick(rng, (1, 2, 2)))
    low, width = {"small": (1, 12), "age": (2, 88), "year": (1800, 230)}[kind]
    return low + int(rng.random() * width)


def _coded(rng: random.Random, kind: str) -> str:
    """Values with an inner form."""
    if kind == "email":
        user = pick(rng, slots("en")["name"]).split()[0].lower()
        return f"{user}@{made_name(rng).lower()}.{pick(rng, ('com', 'org', 'net'))}"
    if kind == "phone":
        return f"{_digits(rng, 3)}-{_digits(rng, 4)}"
    if kind == "code":
        return pick(rng, string.ascii_uppercase) + _digits(rng, 3 + int(rng.random() * 3))
    if kind == "date":
        return f"20{_digits(rng, 2)}-{1 + int(rng.random() * 12):02d}-{1 + int(rng.random() * 28):02d}"
    return f"{int(rng.random() * 24):02d}:{int(rng.random() * 12) * 5:02d}"


def value(rng: random.Random, kind: str, language: str, made: bool = True) -> Any:
    """A value of one kind: str, int, float or bool. Without `made` only known words."""
    if kind in INTEGERS or kind == "price":
        return _number(rng, kind)
    if kind == "bool":
        return rng.random() < 0.5
    if kind in ("email", "phone", "code", "date", "time"):
        return _coded(rng, kind)
    return _text(rng, kind, language, made)


def json_type(kind: str) -> str:
    """The JSON schema type of a kind."""
    if kind in INTEGERS:
        return "integer"
    return {"price": "number", "bool": "boolean"}.get(kind, "string")
