"""Raw texts that go on from a common opening, with no chat marks: introductions, AI, weather, school and so on."""

import functools
import random
import re

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, completion, pick

SLOT = re.compile(r"\{(\w+?)2?\}")
FIXED = ("ai.en", "president.en", "ai.zh", "president.zh")


@functools.cache
def slots(language: str) -> dict[str, list[str]]:
    """Words for each slot."""
    found = {}
    for line in sections("plain.txt")[f"slots.{language}"]:
        name, words = line.split(": ")
        found[name] = words.split(", ")
    found["age"] = [str(n) for n in range(18, 70)]
    return found


@functools.cache
def _essays() -> list[str]:
    return [name for name in sections("plain.txt") if name.startswith("essay.")]


def fill(rng: random.Random, text: str, language: str) -> str:
    """Fills every slot with a fresh word; `{city2}` differs from `{city}`."""
    used: dict[str, str] = {}

    def word(match: re.Match[str]) -> str:
        while True:
            value = pick(rng, slots(language)[match.group(1)])
            if value != used.get(match.group(1)):
                used[match.group(1)] = value
                return value

    return SLOT.sub(word, text)


def _introduction(rng: random.Random, language: str) -> Document:
    table = sections("plain.txt")
    prompt = pick(rng, table[f"name.{language}"][0].split(" | "))
    name = pick(rng, slots(language)["name"])
    count = 1 + int(rng.random() * 5)
    more = [fill(rng, s, language) for s in rng.sample(table[f"self.{language}"], count)]
    if language == "zh":
        return completion(prompt, f"{name}。" + "".join(more))
    return completion(prompt, f" {name}. " + " ".join(more))


def _fixed(rng: random.Random) -> Document:
    table = sections("plain.txt")
    topic, language = pick(rng, FIXED).split(".")
    prompt = pick(rng, table[f"prompts.{topic}.{language}"][0].split(" | "))
    first = pick(rng, table[f"{topic}.{language}"])
    more = rng.sample(table[f"{topic}.more.{language}"], int(rng.random() * 5))
    if language == "zh":
        first = first if prompt.endswith("是") else "是" + first
        return completion(prompt, first + "".join(more))
    return completion(prompt, " " + " ".join([first, *more]))


def _essay(rng: random.Random) -> Document:
    name = pick(rng, _essays())
    openings, firsts, *more = sections("plain.txt")[name]
    chosen = rng.sample(more, 2 + int(rng.random() * 4))
    prompt, first = pick(rng, openings.split(" | ")), pick(rng, firsts.split(" | "))
    if name.endswith("zh"):
        return completion(prompt, first + "".join(chosen), learn_prompt=True)
    return completion(prompt, " " + " ".join([first, *chosen]), learn_prompt=True)


def train(rng: random.Random) -> Document:
    """One raw text."""
    draw = rng.random()
    if draw < 0.4:
        return _introduction(rng, "en" if rng.random() < 0.5 else "zh")
    return _fixed(rng) if draw < 0.7 else _essay(rng)
