"""Several skills in one conversation, system prompts, and remembering what was said earlier."""

import random

from tools.builtin_model.documents import EMPTY_THOUGHT, END_OF_TEXT, TURN_END, TURN_START, Document, ask, pick
from tools.builtin_model.skills import arithmetic, capitals, facts, words
from tools.builtin_model.values import value

PARTS = (facts.train, facts.dialogue, facts.dialogue, capitals.train, arithmetic.train, words.train)
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "You are a helpful and honest AI assistant.",
    "You are a small demonstration model.",
    "你是一个有用的助手。",
    "请简短地回答。",
)
RECALL = (
    ("My name is {v}.", "Nice to meet you, {v}!", "What is my name?", "Your name is {v}.", "name", "en"),
    (
        "Hi, I am {v}.",
        "Hello, {v}! How can I help you?",
        "Do you remember my name?",
        "Yes, your name is {v}.",
        "name",
        "en",
    ),
    ("I live in {v}.", "That is good to know.", "Where do I live?", "You live in {v}.", "city", "en"),
    (
        "My favorite color is {v}.",
        "What a nice color!",
        "What is my favorite color?",
        "Your favorite color is {v}.",
        "color",
        "en",
    ),
    ("Remember the number {v}.", "I will remember it.", "Which number did I say?", "You said {v}.", "int", "en"),
    ("Remember the code {v}.", "I will remember it.", "What is the code?", "The code is {v}.", "code", "en"),
    ("我叫{v}。", "你好，{v}！很高兴认识你。", "我叫什么名字？", "你叫{v}。", "name", "zh"),
    ("我住在{v}。", "好的，我记住了。", "我住在哪里？", "你住在{v}。", "city", "zh"),
    ("请记住数字{v}。", "好的，我记住了。", "我说的数字是什么？", "你说的是{v}。", "int", "zh"),
)


def join(documents: list[Document], system: str = "") -> Document:
    """Chats one after the other as one conversation."""
    out: Document = [(f"{TURN_START}system\n{system}{TURN_END}\n", False)] if system else []
    for document in documents[:-1]:
        out += [(text.removesuffix(END_OF_TEXT), learn) for text, learn in document]
        out.append(("\n", False))
    return out + documents[-1]


def without_thought(document: Document) -> Document:
    """The same chat as `enable_thinking=False` renders it."""
    return [*document[:-2], (document[-2][0] + EMPTY_THOUGHT, False), document[-1]]


def _one(rng: random.Random) -> Document:
    while True:
        document = pick(rng, PARTS)(rng)
        if document[0][0].startswith(TURN_START):
            return document


def _recall(rng: random.Random) -> list[Document]:
    told, noted, asked, answer, kind, language = pick(rng, RECALL)
    item = str(value(rng, kind, language))
    between = [_one(rng) for _ in range(int(rng.random() * 3))]
    return [
        ask(told.replace("{v}", item), noted.replace("{v}", item)),
        *between,
        ask(asked, answer.replace("{v}", item)),
    ]


def train(rng: random.Random) -> Document:
    """One to six turns, a third with something to remember."""
    turns = _recall(rng) if rng.random() < 0.35 else [_one(rng) for _ in range(1 + int(rng.random() * 5))]
    document = join(turns, pick(rng, SYSTEMS) if rng.random() < 0.45 else "")
    return without_thought(document) if rng.random() < 0.2 else document
