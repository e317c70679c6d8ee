"""What a tool and a request for it are, whichever generator made them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.builtin_model.documents import pick
from tools.builtin_model.holdout import held_pair
from tools.builtin_model.values import value

Property = tuple[str, str, str, bool]  # key, kind, description, required
Asked = tuple[str, dict[str, Any]]  # a request and the arguments that are right


@dataclass
class Case:
    """One tool with a request that it serves and the arguments that are right."""

    name: str
    about: str
    properties: list[Property]
    request: str
    arguments: dict[str, Any]
    language: str
    again: Callable[[random.Random], Asked] | None = None  # another request for the same tool
    explained: bool = False  # keys alone do not tell which value is whose: the schema has to describe them


def tool_name(rng: random.Random, verb: str, noun: str) -> str:
    """The name of a tool in the shapes in which people write it."""
    draw = rng.random()
    if draw < 0.7:
        return f"{verb}_{noun}"
    if draw < 0.85:
        return verb + noun.capitalize()
    return f"{noun}_{verb}" if draw < 0.95 else f"{verb}-{noun}"


def argument(rng: random.Random, kind: str, language: str) -> Any:
    """A value of one kind, an arithmetic expression among them."""
    if kind == "expression":
        while True:
            first, second = int(rng.random() * 1000), int(rng.random() * 1000)
            if not held_pair(first, second):
                return f"{first} {pick(rng, '+-*/')} {second}"
    return value(rng, kind, language)
