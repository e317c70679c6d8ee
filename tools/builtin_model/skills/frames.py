"""Tools whose requests come from sentence frames: verb, noun and values stand anywhere in the sentence.

A frame leaves open which kinds of value it holds, what they are called, and what surrounds them, so that there are more
sentences than a model can learn by heart: it has to find where a value begins and ends.
"""

import functools
import random
import re
from dataclasses import dataclass
from typing import Any

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import pick
from tools.builtin_model.holdout import held_pair, held_tool
from tools.builtin_model.lexicon import made_key, made_word
from tools.builtin_model.skills.tool_case import Asked, Case, Property, tool_name
from tools.builtin_model.values import value

SLOT = re.compile(r"\{([A-Z])\}")
WORD = re.compile(r"\[(\w+)\]")
Pair = tuple[str, str]
FREE = "ATMPQ"  # classes whose values people choose freely: their keys cannot be told from the value alone


@dataclass
class Kind:
    """One class of values: what they are, their keys with Chinese names, and how a sentence says them."""

    kind: str
    keys: list[Pair]
    forms: dict[str, list[str]]


@dataclass
class Place:
    """One value of a frame: its parameter and the forms that fit."""

    key: str
    kind: str
    about: str
    forms: list[str]
    optional: bool = False


@functools.cache
def _pairs(section: str) -> list[Pair]:
    return [tuple(item.split(" ", 1)) for item in sections("frames.txt")[section][0].split(" | ")]  # type: ignore[misc]


@functools.cache
def _kinds() -> dict[str, Kind]:
    found = {}
    for line in sections("frames.txt")["values"]:
        letter, kind, keys, english, chinese = line.split(" | ")
        named: list[Pair] = [tuple(k.split("=")) for k in keys.split(",")]  # type: ignore[misc]
        found[letter] = Kind(kind, named, {"en": english.split(";"), "zh": chinese.split(";")})
    return found


@functools.cache
def _open() -> list[str]:
    return sections("frames.txt")["open"][0].removeprefix("X: ").split()


@functools.cache
def _items(section: str) -> list[str]:
    return [item.strip() for item in sections("frames.txt")[section][0].split(" | ")]


def _third(verb: str) -> str:
    if verb.endswith(("s", "x", "ch", "sh", "ss")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "s"


def _past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "ed"


def _words(rng: random.Random, language: str, verb: Pair, noun: Pair) -> dict[str, str]:
    """What stands in square brackets."""
    other = pick(rng, _pairs("nouns"))
    if language == "zh":
        return {"v": verb[1], "n": noun[1], "m": other[1]}
    base = verb[0]
    stem = base[:-1] if base.endswith("e") else base
    forms = {"v": base, "V": base, "vs": _third(base), "ved": _past(base), "ving": stem + "ing"}
    return forms | {"n": noun[0], "m": other[0]}


def _place(rng: random.Random, letter: str, language: str, known: bool) -> Place:
    """A parameter of one class; `known` keeps to keys of the list."""
    kind = _kinds()[letter]
    key, chinese = pick(rng, kind.keys)
    said = key.replace("_", " ") if language == "en" else chinese
    base, unit = kind.kind, ("", "")
    if letter == "N":
        unit = pick(rng, _pairs("units"))
        base = pick(rng, ("int", "int", "small", "small", "price"))
        if rng.random() < 0.6 and unit[0].isalpha():
            key, said = unit[0], unit[0] if language == "en" else unit[1]
    if not known and rng.random() < 0.35:
        key = made_key(rng)
    about = _about(rng, language, said)
    u = unit[0] if language == "en" else unit[1]
    forms = [f.replace("{k}", said).replace("{u}", u) for f in kind.forms[language]]
    return Place(key, base, about, forms)


def _about(rng: random.Random, language: str, said: str) -> str:
    if language == "zh" and rng.random() < 0.6:
        return pick(rng, ("{k}", "{k}", "要用的{k}", "这里写{k}")).replace("{k}", said)
    return pick(rng, ("The {k}", "The {k}", "{k}", "Which {k}", "{k} to use", "The {k} of it")).replace("{k}", said)


def _choose_frame(rng: random.Random, language: str) -> str:
    """A frame, now and then with words or values before and behind it."""
    found = sections("frames.txt")
    frame = pick(rng, found[f"frames.{language}"])
    mark = frame[-1] if frame[-1] in "?？" else ""
    body = frame.rstrip(".。?？!！")
    draw = rng.random()
    if draw < 0.35:
        tail = pick(rng, _items(f"tails.{language}"))
        body += (" " if language == "en" else "") + tail
    if draw > 0.8 or draw < 0.05:
        head = pick(rng, _items(f"heads.{language}"))
        if rng.random() < 0.7:
            body = body.replace("[V]", "[v]")
        body = head + (" " + body if language == "en" else body)
    return body + (mark or pick(rng, _items(f"ends.{language}")))


def _places(rng: random.Random, frame: str, language: str) -> tuple[str, list[Place]] | None:
    """The frame with numbered slots, and a parameter for each; None when two could be taken for each other."""
    places: list[Place] = []
    letters: list[str] = []

    def number(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter in "XY":
            free = [one for one in _open() if one not in letters]
            letter = pick(rng, free)
        letters.append(letter)
        places.append(_place(rng, letter, language, known=len(letters) > 1))
        return "{" + str(len(places) - 1) + "}"

    frame = SLOT.sub(number, frame)
    if len(set(letters)) < len(letters) or len({p.key for p in places}) < len(places) or not 1 <= len(places) <= 4:
        return None
    return frame, places


def _filled(rng: random.Random, frame: str, places: list[Place], words: dict[str, str], language: str) -> Asked:
    """The frame with fresh values."""
    known = 0.55 if language == "zh" else 0.25  # share of values without made-up words
    while True:
        values = [value(rng, p.kind, language, made=rng.random() > known) for p in places]
        numbers = [v for v in values if isinstance(v, int)]
        if len(numbers) < 2 or not held_pair(*numbers[:2]):
            break
    text = WORD.sub(lambda m: _inflected(rng, m.group(1), words), frame)
    if text[0].isalpha() and rng.random() < 0.9:
        text = text[0].upper() + text[1:]
    arguments: dict[str, Any] = {}
    for index, (place, item) in enumerate(zip(places, values, strict=True)):
        form = pick(rng, place.forms)
        if language == "en" and text.startswith("{" + str(index) + "}") and form[0].isalpha():
            form = form[0].upper() + form[1:]
        text = text.replace("{" + str(index) + "}", form.replace("{v}", str(item)))
        arguments[place.key] = item
    return text, arguments


def _inflected(rng: random.Random, code: str, words: dict[str, str]) -> str:
    if code == "prep":
        return str(pick(rng, _items("preps.en")))
    word = words[code]
    return word[0].upper() + word[1:] if code == "V" else word


def _extras(rng: random.Random, places: list[Place], language: str) -> list[Place]:
    """Optional parameters of which the request says nothing."""
    found: list[Place] = []
    kinds = {p.kind for p in places}
    for _ in range(pick(rng, (0, 0, 0, 1, 1, 2))):
        extra = _place(rng, pick(rng, [*_open(), "N", "H", "Z", "W"]), language, known=False)
        extra.optional = True
        if extra.kind not in kinds and all(extra.key != p.key for p in places + found):
            found.append(extra)
    return found


def _verb_and_noun(rng: random.Random) -> tuple[Pair, Pair]:
    while True:
        verb, noun = pick(rng, _pairs("verbs")), pick(rng, _pairs("nouns"))
        draw = rng.random()
        if draw < 0.12:
            verb = (made_word(rng),) * 2
        elif draw < 0.27:
            noun = (made_word(rng),) * 2
        if not (held_tool(verb[0], noun[0]) or held_tool(noun[0], verb[0])):
            return verb, noun


def framed_case(rng: random.Random) -> Case:
    """A tool and a request in one of its frames."""
    language = "en" if rng.random() < 0.55 else "zh"
    while True:
        placed = _places(rng, _choose_frame(rng, language), language)
        if placed:
            break
    frame, places = placed
    verb, noun = _verb_and_noun(rng)
    words = _words(rng, language, verb, noun)
    order = places + _extras(rng, places, language)
    rng.shuffle(order)
    properties: list[Property] = [(p.key, p.kind, p.about, not p.optional and rng.random() < 0.95) for p in order]
    keys = [p.key for p in order]

    def again(source: random.Random) -> Asked:
        text, found = _filled(source, frame, places, words, language)
        return text, {key: found[key] for key in keys if key in found}

    request, arguments = again(rng)
    return Case(
        tool_name(rng, verb[0], noun[0]), _purpose(rng, language, verb, noun), properties, request, arguments, language,
        again, explained=len(places) > 1,
    )  # fmt: skip


def _purpose(rng: random.Random, language: str, verb: Pair, noun: Pair) -> str:
    if language == "zh" and rng.random() < 0.7:
        return str(pick(rng, ("", "", "用来", "帮用户"))) + verb[1] + noun[1]
    text = f"{verb[0]} {pick(rng, ('a', 'the', 'a', 'some'))} {noun[0]}"
    return text[0].upper() + text[1:] + pick(rng, ("", "", "", " for the user", " and report back"))
