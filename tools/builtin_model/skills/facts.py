"""Small facts, greetings and who the model is: fixed questions with their answers, in both languages."""

import functools
import random

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Question, ask, completion, pick
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import styled

PREFIXES = {
    "en": ("", "", "", "", "Please tell me: ", "Question: ", "I have a question. ", "Hello! ", "Do you know? "),
    "zh": ("", "", "", "", "请问，", "问题：", "我想问一下，", "你好，"),
}
RAW = {"en": ("Question: {q}\nAnswer:", "Q: {q}\nA:"), "zh": ("问：{q}\n答：", "问题：{q}\n回答：")}


@functools.cache
def entries(name: str, language: str) -> list[tuple[list[str], list[str]]]:
    """Questions and answers of one file and language."""
    found = []
    for line in sections(name)[f"chat.{language}"]:
        questions, answers = line.split(" => ")
        found.append(([q.strip() for q in questions.split(" | ")], [_lines(a) for a in answers.split(" | ")]))
    return found


def _lines(text: str) -> str:
    return text.replace(" \\n", "\n").replace("\\n", "\n").strip()


def train(rng: random.Random) -> Document:
    """One fact, as a chat or as a raw question and answer."""
    language = "en" if rng.random() < 0.55 else "zh"
    questions, answers = pick(rng, entries("facts.txt", language))
    question, answer = pick(rng, questions), pick(rng, answers)
    if rng.random() < 0.15:
        space = " " if language == "en" else ""
        return completion(pick(rng, RAW[language]).replace("{q}", question), space + answer)
    question = pick(rng, PREFIXES[language]) + styled(rng, question)
    return ask(decorated(rng, question, language), answer)


def dialogue(rng: random.Random) -> Document:
    """Greetings, thanks, who are you."""
    questions, answers = pick(rng, entries("dialogue.txt", "en" if rng.random() < 0.5 else "zh"))
    return ask(styled(rng, pick(rng, questions)), pick(rng, answers))


def heldout(rng: random.Random) -> list[Question]:
    """Every fact once, behind an opening that training does not use."""
    found = []
    for language, opening in (("en", "One more thing I would like to ask you: "), ("zh", "还有一件事想请教你：")):
        for questions, answers in entries("facts.txt", language):
            message = {"role": "user", "content": opening + pick(rng, questions)}
            found.append(Question(f"facts.{language}", answers, [message]))
    return found


def correct(question: Question, answer: str) -> bool:
    """One of the taught answers, word for word."""
    return answer.strip() in question.expected
