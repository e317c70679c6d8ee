"""Tools composed of a verb, a noun and one to four parameters, each said in a phrase of its own."""

import functools
import random
from dataclasses import dataclass
from typing import Any

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import pick
from tools.builtin_model.holdout import held_pair, held_tool
from tools.builtin_model.lexicon import made_key, made_word
from tools.builtin_model.phrasings import choose
from tools.builtin_model.skills.tool_case import Case, argument, tool_name
from tools.builtin_model.skills.tool_data import openers, params, taught_names, words
from tools.builtin_model.values import json_type


@dataclass
class Param:
    """One parameter of a composed tool: its key, kind of value, phrases by language and description."""

    key: str
    kind: str
    phrases: dict[str, list[str]]
    about: str


MADE_KINDS = ("int", "small", "price", "thing", "phrase", "name", "city", "code", "date", "made", "made", "title")
MADE_PHRASES = {
    "en": (
        "with {k} {v}",
        "with the {k} {v}",
        "{k} {v}",
        "and the {k} is {v}",
        "where the {k} is {v}",
        "set the {k} to {v}",
        "using {v} as {k}",
        "{k}: {v}",
    ),
    "zh": ("{k}是{v}", "{k}为{v}", "{k}：{v}", "把{k}设为{v}", "用{v}作{k}"),
}
NUMBER_PHRASES = {"en": ("with {v} {k}", "{v} {k}", "for {v} {k}", "by {v} {k}"), "zh": ("{v}{k}", "{k}{v}")}
TEXT_PHRASES = {
    "en": ("in the {v}", "in {v}", "to {v}", "from {v}", "at the {v}", "near {v}"),
    "zh": ("在{v}", "从{v}"),
}


def made_param(rng: random.Random) -> Param:
    """A parameter with a key of no list, so that keys are read and not remembered."""
    key, kind = made_key(rng), pick(rng, MADE_KINDS)
    said = key.replace("_", " ")
    phrases = {}
    for language in ("en", "zh"):
        draw = rng.random()
        source = MADE_PHRASES[language]
        if draw < 0.4 and json_type(kind) in ("integer", "number"):
            source = NUMBER_PHRASES[language]
        elif draw < 0.3:
            source = TEXT_PHRASES[language]
        phrases[language] = [pick(rng, source).replace("{k}", said)]
    return Param(
        key, kind, phrases, pick(rng, ("The {k}", "{k}", "The {k} to use", "Value of {k}")).replace("{k}", said)
    )


@functools.cache
def _twins() -> list[tuple[list[str], str, dict[str, list[str]]]]:
    found = []
    for line in sections("tools.txt")["pairs"]:
        keys, kind, english, chinese = line.split(" | ")
        found.append((keys.split(","), kind, {"en": english.split(";"), "zh": chinese.split(";")}))
    return found


def _twin_case(rng: random.Random, language: str) -> tuple[dict[str, Any], list[tuple[str, str, str, bool]], str]:
    """Arguments, properties and phrase of two parameters of one kind, told apart by their order."""
    keys, kind, phrases = pick(rng, _twins())
    if rng.random() < 0.4:
        keys = [made_word(rng), made_word(rng)]
    while True:
        first, second = argument(rng, kind, language), argument(rng, kind, language)
        if keys[0] != keys[1] and not (kind == "int" and held_pair(first, second)):
            break
        keys = [made_word(rng), made_word(rng)] if keys[0] == keys[1] else keys
    properties = [(key, kind, f"The {key.replace('_', ' ')}", True) for key in keys]
    text = pick(rng, phrases[language]).replace("{v}", str(first)).replace("{w}", str(second))
    return {keys[0]: first, keys[1]: second}, properties, text


def _choose_params(rng: random.Random) -> list[Param]:
    """One to four parameters with different keys; only one that is said without its key."""
    count = pick(rng, (1, 1, 2, 2, 3, 4))
    chosen: dict[str, Param] = {}
    for keys, kind, phrases, about in rng.sample(params(), count):
        param = made_param(rng) if rng.random() < 0.45 else Param(pick(rng, keys), kind, phrases, about)
        vague = any(t in p for p in param.phrases["en"] for t in TEXT_PHRASES["en"])
        if vague and any(json_type(p.kind) == "string" for p in chosen.values()):
            continue
        chosen.setdefault(param.key, param)
    return list(chosen.values())


def _verb_and_noun(rng: random.Random, held: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """The words of a composed tool, each in English and Chinese."""
    while True:
        verb, noun = pick(rng, words("verbs")), pick(rng, words("nouns"))
        draw = rng.random()
        if held and draw < 0.3:
            return verb, pick(rng, words("heldout.nouns"))
        if draw > 0.5:
            word = made_word(rng)
            noun = (word, word)
        if any(noun[0] == n for n, _ in words("heldout.nouns")):
            continue
        if not held and rng.random() < 0.1:
            verb = (made_word(rng),) * 2
        if held and f"{verb[0]}_{noun[0]}" in taught_names():
            continue
        if held_tool(verb[0], noun[0]) == held:
            return verb, noun


def composed_case(rng: random.Random, held: bool) -> Case:
    """A tool made of a verb, a noun and one to four parameters."""
    language = "en" if rng.random() < 0.6 else "zh"
    verb, noun = _verb_and_noun(rng, held)
    arguments: dict[str, Any] = {}
    properties, said = [], []
    for param in _choose_params(rng):
        optional = len(properties) > 0 and rng.random() < 0.2
        properties.append((param.key, param.kind, param.about, not optional))
        if optional and rng.random() < 0.6:
            continue
        arguments[param.key] = argument(rng, param.kind, language)
        said.append(pick(rng, param.phrases[language]).replace("{v}", str(arguments[param.key])))
    if rng.random() < 0.3:
        rng.shuffle(said)
    if rng.random() < 0.12:
        arguments, properties, text = _twin_case(rng, language)
        said = [text]
    request = _request(rng, language, verb, noun, said)
    if language == "en" and rng.random() < 0.12:  # the thing itself is the parameter: "find The Blue Door"
        item = argument(rng, pick(rng, ("made", "title", "name", "thing")), language)
        arguments, properties = {noun[0]: item}, [(noun[0], "made", f"The {noun[0]}", True)]
        request = f"{verb[0]} {pick(rng, ('the ' + noun[0] + ' ', '', ''))}{item}"
    opener = choose(rng, pick(rng, openers(language + (".heldout" if held else ""))))
    request = opener.replace("{r}", request)
    if not held and verb[0] in ("get", "find", "check", "show", "list") and said and rng.random() < 0.2:
        request = (
            f"What is the {noun[0]} {' '.join(said)}?" if language == "en" else f"{'，'.join(said)}，{noun[1]}是什么？"
        )
    about = f"{verb[0].capitalize()} {pick(rng, ('a', 'the'))} {noun[0]}"
    if language == "zh" and rng.random() < 0.5:
        about = pick(rng, ("", "用来", "可以")) + verb[1] + noun[1]
    return Case(
        tool_name(rng, verb[0], noun[0]), about, properties, request[0].upper() + request[1:], arguments, language
    )


def _request(rng: random.Random, language: str, verb: tuple[str, str], noun: tuple[str, str], said: list[str]) -> str:
    """What the tool is to do, as a clause."""
    if language == "en":
        return " ".join([verb[0], pick(rng, ("the", "a", "a", "my")), noun[0], *said])
    return "，".join([verb[1] + noun[1], *said])
