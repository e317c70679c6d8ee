"""Addition and subtraction up to three digits; the operand pairs of `held_pair` are never trained on."""

import random
import re

from tools.builtin_model.documents import Document, Question, ask, completion, pick
from tools.builtin_model.holdout import held_pair
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import phrase, styled

RAW = {
    "en": ("{a} {o} {b} =", "{a}{o}{b}=", "Q: {a} {o} {b}\nA:", "The answer to {a} {o} {b} is", "{a} {w} {b} is"),
    "zh": ("{a}{z}{b}等于", "{a}{o}{b}=", "问：{a}{o}{b}\n答："),
}


def operands(rng: random.Random, held: bool = False, low: int = 0) -> tuple[int, int]:
    """A pair that is (or is not) held out; mostly three digits."""
    while True:
        if low or rng.random() < 0.85:
            first, second = 100 + int(rng.random() * 900), 100 + int(rng.random() * 900)
        else:
            first, second = int(rng.random() * 1000), int(rng.random() * 10 ** (1 + int(rng.random() * 3)))
        if held_pair(first, second) == held:
            return first, second


def _ordered(rng: random.Random, plus: bool, first: int, second: int) -> tuple[int, int]:
    """Differences are mostly, not always, positive."""
    if not plus and first < second and rng.random() < 0.7:
        return second, first
    return first, second


def _raw(rng: random.Random, plus: bool, first: int, second: int) -> Document:
    language = "en" if rng.random() < 0.6 else "zh"
    text = pick(rng, RAW[language])
    marks = {"o": "+" if plus else "-", "z": "加" if plus else "减", "w": "plus" if plus else "minus"}
    for name, value in {"a": first, "b": second, **marks}.items():
        text = text.replace("{" + name + "}", str(value))
    result = first + second if plus else first - second
    space = "" if text.endswith(("等于", "+", "=", "：")) and " " not in text else " "
    end = "。" if text.endswith("等于") else "." if text.endswith("is") else ""
    return completion(text, f"{space}{result}{end}")


def train(rng: random.Random) -> Document:
    """One sum or difference, as a chat or as a raw text."""
    first, second = operands(rng)
    plus = rng.random() < 0.5
    first, second = _ordered(rng, plus, first, second)
    if rng.random() < 0.3:
        return _raw(rng, plus, first, second)
    language = "en" if rng.random() < 0.6 else "zh"
    question = decorated(rng, question_text(rng, language, plus, first, second, "train"), language, 0.3)
    return ask(question, answer_text(plus, first, second))


def question_text(rng: random.Random, language: str, plus: bool, first: int, second: int, part: str) -> str:
    """A question in words; stories with things in them never go below zero."""
    section = f"{'add' if plus else 'sub'}.{language}.{part}"
    while True:
        text = phrase(rng, section, a=first, b=second)
        if plus or first >= second or not re.search(r"apples|coins|birds|苹果", text):
            return styled(rng, text) if part == "train" else text


def answer_text(plus: bool, first: int, second: int) -> str:
    """The whole equation: the operands stand next to their result."""
    return f"{first} + {second} = {first + second}" if plus else f"{first} - {second} = {first - second}"


def heldout(rng: random.Random, count: int = 250) -> list[Question]:
    """Held-out pairs in held-out phrasings, `count` for each of two operations and languages; some raw."""
    found = []
    for language in ("en", "zh"):
        for plus in (True, False):
            for _ in range(count):
                first, second = _ordered(rng, plus, *operands(rng, held=True, low=100))
                text = question_text(rng, language, plus, first, second, "heldout")
                expected = first + second if plus else first - second
                message = {"role": "user", "content": text}
                found.append(Question(f"arithmetic.{'add' if plus else 'sub'}.{language}", expected, [message]))
    for _ in range(count):
        first, second = operands(rng, held=True, low=100)
        plus = rng.random() < 0.5
        first, second = _ordered(rng, plus, first, second)
        expected = first + second if plus else first - second
        found.append(Question("arithmetic.raw", expected, prompt=f"{first} {'+' if plus else '-'} {second} ="))
    return found


def correct(question: Question, answer: str) -> bool:
    """The last number of the answer is the result."""
    numbers = re.findall(r"-?\d+", answer)
    return bool(numbers) and int(numbers[-1]) == question.expected
