"""Sorting, reversing and counting short lists of words and numbers."""

import random
import re

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Question, ask, pick
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import phrase

NUMBER_EN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TASKS = ("sort.en", "sort.en", "reverse.en", "count.en", "reverse.zh", "count.zh", "sortnum.en", "sortnum.zh")
SEPARATORS = {"en": (", ", ", ", " "), "zh": ("、", "、", "，", " ")}


def _items(rng: random.Random, task: str) -> list[str]:
    kind, language = task.split(".")
    count = 2 + int(rng.random() * 7)
    if kind == "sortnum":
        return [str(n) for n in rng.sample(range(1, 100 if rng.random() < 0.7 else 1000), min(count, 6))]
    return rng.sample(sections("words.txt")[language], min(count, 7) if kind == "sort" else count)


def _solve(task: str, items: list[str], separator: str) -> str:
    kind, language = task.split(".")
    if kind == "sort":
        return separator.join(sorted(items))
    if kind == "sortnum":
        return separator.join(sorted(items, key=int))
    if kind == "reverse":
        return separator.join(reversed(items))
    count = len(items)
    return f"There are {count} words." if language == "en" else f"一共有{count}个词。"


def _pose(rng: random.Random, task: str, part: str) -> tuple[str, str]:
    language = task.split(".")[1]
    items = _items(rng, task)
    separator = pick(rng, SEPARATORS[language])
    return phrase(rng, f"{task}.{part}", w=separator.join(items)), _solve(task, items, separator)


def train(rng: random.Random) -> Document:
    """One list with one task."""
    task = pick(rng, TASKS)
    question, answer = _pose(rng, task, "train")
    if question.endswith(("words.", "numbers.", "me.", "please.", "now.", "。", "?", "？")):
        return ask(decorated(rng, question, task.split(".")[1]), answer)
    return ask(decorated(rng, question, task.split(".")[1], opening_only=True), answer)


def heldout(rng: random.Random, count: int = 60) -> list[Question]:
    """Fresh lists in held-out phrasings, `count` for each task."""
    found = []
    for task in dict.fromkeys(TASKS):
        for _ in range(count):
            text, expected = _pose(rng, task, "heldout")
            found.append(Question(f"words.{task}", expected, [{"role": "user", "content": text}]))
    return found


def correct(question: Question, answer: str) -> bool:
    """The same items in the same order, whatever the separators; for counting the same number."""
    split = re.compile(r"[\s,.、，。]+")
    return [w for w in split.split(answer) if w] == [w for w in split.split(question.expected) if w]
