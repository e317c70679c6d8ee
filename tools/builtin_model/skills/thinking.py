"""Reasoning inside `<think>` when it is asked for: by the template's switch or in the user's words."""

import random

from tools.builtin_model.documents import Document, Question, chat, pick
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import phrase
from tools.builtin_model.skills import arithmetic, capitals

NAMES = (("ones", "个位"), ("tens", "十位"), ("hundreds", "百位"))
FRUITS = (("apples", "苹果"), ("pears", "梨"), ("eggs", "鸡蛋"), ("books", "书"), ("coins", "硬币"))
PEOPLE = (("Anna", "小明"), ("Tom", "小红"), ("Ben", "李华"), ("Mia", "王芳"), ("Leo", "乐乐"))


def column_addition(first: int, second: int, language: str) -> str:
    """Digit by digit with the carry spelled out."""
    steps, carry, place = [], 0, 0
    width = max(len(str(first)), len(str(second)))
    for place in range(width):
        left, right = first // 10**place % 10, second // 10**place % 10
        total = left + right + carry
        added = f"{left} + {right}" + (" + 1" if carry else "")
        carry = total // 10
        if language == "en":
            note = f", write {total % 10} and carry 1" if carry else ""
            steps.append(f"{NAMES[place][0].capitalize()}: {added} = {total}{note}.")
        else:
            note = f"，写{total % 10}进1" if carry else ""
            steps.append(f"{NAMES[place][1]}：{added} = {total}{note}。")
    joined = "\n".join(steps)
    result = first + second
    return joined + (
        f"\nSo {first} + {second} = {result}." if language == "en" else f"\n所以{first} + {second} = {result}。"
    )


def _sum(rng: random.Random, language: str, held: bool) -> tuple[str, str, str, int | str]:
    first, second = arithmetic.operands(rng, held, low=100 if held else 0)
    question = arithmetic.question_text(rng, language, True, first, second, "heldout" if held else "train")
    return (
        question,
        column_addition(first, second, language),
        arithmetic.answer_text(True, first, second),
        first + second,
    )


def _larger(rng: random.Random, language: str, held: bool) -> tuple[str, str, str, int | str]:
    first, second = arithmetic.operands(rng, held, low=100)
    if first == second:
        return _larger(rng, language, held)
    top = max(first, second)
    digits = list(zip(str(first), str(second), strict=True))
    place = next(i for i, (a, b) in enumerate(digits) if a != b)
    if language == "en":
        name = ("hundreds", "tens", "ones")[place]
        thought = f"I compare digit by digit. The {name} differ: {digits[place][0]} and {digits[place][1]}."
        return (
            f"Which number is larger, {first} or {second}?",
            f"{thought} So {top} is larger.",
            f"{top} is larger.",
            top,
        )
    name = ("百位", "十位", "个位")[place]
    thought = f"我一位一位地比较。{name}不同：{digits[place][0]}和{digits[place][1]}。"
    return f"{first}和{second}哪个大？", f"{thought}所以{top}更大。", f"{top}更大。", top


def _story(rng: random.Random, language: str) -> tuple[str, str, str, int | str]:
    has, gets = 5 + int(rng.random() * 40), 1 + int(rng.random() * 30)
    gives = 1 + int(rng.random() * (has + gets - 1))
    middle, rest = has + gets, has + gets - gives
    index = 0 if language == "en" else 1
    fruit, person = pick(rng, FRUITS)[index], pick(rng, PEOPLE)[index]
    if language == "en":
        question = f"{person} has {has} {fruit}, gets {gets} more and gives away {gives}. How many {fruit} are left?"
        thought = f"First {has} + {gets} = {middle}.\nThen {middle} - {gives} = {rest}."
        return question, thought, f"{person} has {rest} {fruit} left.", rest
    question = f"{person}有{has}个{fruit}，又得到{gets}个，送出{gives}个，还剩几个？"
    return (
        question,
        f"先算{has} + {gets} = {middle}。\n再算{middle} - {gives} = {rest}。",
        f"还剩{rest}个{fruit}。",
        rest,
    )


def _capital(rng: random.Random, language: str, held: bool) -> tuple[str, str, str, int | str]:
    en, zh, capital_en, capital_zh, code = pick(rng, capitals.countries())
    part = "heldout" if held else "train"
    if language == "en":
        question = phrase(rng, f"capital.en.{part}", c=en)
        thought = (
            f"The question is about {en}, a country in {capitals.CONTINENTS[code][0]}. Its capital is {capital_en}."
        )
        return (
            question[0].upper() + question[1:],
            thought.replace("..", "."),
            f"The capital of {en} is {capital_en}.".replace("..", "."),
            capital_en,
        )
    thought = f"问题问的是{zh}，{capitals.CONTINENTS[code][1]}的一个国家。它的首都是{capital_zh}。"
    return phrase(rng, f"capital.zh.{part}", c=zh), thought, f"{zh}的首都是{capital_zh}。", capital_zh


def _task(rng: random.Random, language: str, held: bool) -> tuple[str, str, str, int | str]:
    draw = rng.random()
    if draw < 0.4:
        return _sum(rng, language, held)
    if draw < 0.55:
        return _larger(rng, language, held)
    return _story(rng, language) if draw < 0.8 else _capital(rng, language, held)


def train(rng: random.Random) -> Document:
    """One question with thought and answer; a few with thinking switched off, whatever the words ask."""
    language = "en" if rng.random() < 0.6 else "zh"
    question, thought, answer, _ = _task(rng, language, False)
    in_words = rng.random() < 0.5
    if in_words:
        question = phrase(rng, f"think.{language}.train", q=question)
    question = decorated(rng, question, language, 0.25)
    if rng.random() < 0.12:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return chat(messages, thinking=False)
    reply = f"<think>\n{thought}\n</think>\n\n{answer}"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return chat(messages, thinking=None if in_words and rng.random() < 0.8 else True)


def heldout(rng: random.Random, count: int = 200) -> list[Question]:
    """Held-out phrasings and operand pairs, asked for in words or by the switch in turn."""
    found = []
    for index in range(count):
        language = "en" if rng.random() < 0.6 else "zh"
        question, _, _, expected = _task(rng, language, True)
        if index % 2:
            question = phrase(rng, f"think.{language}.heldout", q=question)
        messages = [{"role": "user", "content": question}]
        found.append(Question(f"thinking.{language}", str(expected), messages, thinking=None if index % 2 else True))
    return found


def correct(question: Question, answer: str) -> bool:
    """A thought, closed, and after it the expected number or name."""
    head, mark, tail = answer.partition("</think>")
    return bool(mark) and head.startswith("<think>") and len(head) > 20 and question.expected in tail
