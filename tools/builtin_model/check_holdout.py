"""Proves that what the evaluation asks is absent from training: phrasings, operand pairs, schemas, tools.

It makes the training documents of many shards again (the same function of seed and shard number that the trainer
read) and looks into their text; and it checks that every held-out question really is held out.

    python -m tools.builtin_model.check_holdout --shards 400
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterable

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Question
from tools.builtin_model.generate import shuffled
from tools.builtin_model.holdout import held_pair, held_schema, held_tool
from tools.builtin_model.mixture import documents
from tools.builtin_model.skills import arithmetic, thinking, tools
from tools.builtin_model.skills.tool_data import taught_names

SUM = re.compile(r"(?<![\d.-])(\d{3}) ?[-+加减] ?(\d{3})(?![\d.-])")
NUMBER = re.compile(r"(?<!\d)\d{3}(?!\d)")
NAME = re.compile(r'"name": "([^"]+)"')
SLOT = re.compile(r"\{\w+\}")
TURN = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)


def heldout_phrasings() -> list[list[str]]:
    """Each held-out phrasing as the fixed pieces between its slots."""
    lines = []
    for heading, found in sections("phrasings.txt").items():
        if heading.endswith(".heldout"):
            lines += [line.replace("\\n", "\n") for line in found]
    for language in ("en", "zh"):
        lines += sections("tools.txt")[f"openers.{language}.heldout"][0].split(" | ")
    return [[piece for piece in SLOT.split(line) if piece.strip()] for line in lines]


def heldout_tools(seed: int) -> set[str]:
    """Names that no training text may offer: every tool of the evaluation, and every held-out verb with its noun."""
    names = {tool["function"]["name"] for q in tools.heldout(shuffled(seed)) for tool in q.tools}

    def column(section: str) -> list[str]:
        return [item.split(" ")[0] for item in sections("tools.txt")[section][0].split(" | ")]

    held_nouns = column("heldout.nouns")
    for verb in column("verbs"):
        for noun in column("nouns") + held_nouns:
            if noun in held_nouns or (held_tool(verb, noun) and f"{verb}_{noun}" not in taught_names()):
                names |= {f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}-{noun}", verb + noun.capitalize()}
    return names


def heldout_requests() -> list[list[str]]:
    """Sentences of the hand-written held-out tools, as pieces; those too short to be told from others are left out."""
    found = []
    for section in ("heldout.classic", "heldout.wide"):
        for line in sections("tools.txt")[section]:
            for sentence in ";".join(line.split(" | ")[3:]).split(";"):
                pieces = [p.strip(" .?。？") for p in SLOT.split(sentence)]
                pieces = [p for p in pieces if p]
                said = "".join(pieces)
                if len(re.findall(r"[a-z]+", said.lower())) >= 3 or len(re.findall(r"[\u4e00-\u9fff]", said)) >= 4:
                    found.append(pieces)
    return found


def contains(text: str, pieces: list[str]) -> bool:
    """Whether the pieces follow each other in the text, with something in between."""
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece) + 1
    return True


class Check:
    """Counts what was looked at and what was wrong."""

    def __init__(self, seed: int = 1) -> None:
        self.phrasings = heldout_phrasings()
        self.requests = heldout_requests()
        self.tool_names = heldout_tools(seed)
        self.seen = {"documents": 0, "sums": 0, "schemas": 0, "tools": 0, "requests": 0}
        self.wrong: list[str] = []

    def document(self, document: Document) -> None:
        """One training document."""
        self.seen["documents"] += 1
        text = "".join(part for part, _ in document).replace(" an ", " a ")
        self.wrong += [f"phrasing {p}: {text}" for p in self.phrasings if p[0] in text and contains(text, p)]
        for match in SUM.finditer(text):
            self.pair(int(match.group(1)), int(match.group(2)), text)
        if "<tools>" in text:
            self.tools(text)
        if document[-1][0].startswith("{"):
            keys = json.loads(document[-1][0].split("<|im_end|>")[0])
            self.seen["schemas"] += 1
            if held_schema(keys):
                self.wrong.append(f"schema {sorted(keys)}: {text}")

    def pair(self, first: int, second: int, text: str) -> None:
        """Two operands."""
        self.seen["sums"] += 1
        if held_pair(first, second):
            self.wrong.append(f"operands {first} {second}: {text}")

    def tools(self, text: str) -> None:
        """All tool names of a conversation, and what is asked of them."""
        for name in NAME.findall(text.split("</tools>")[0]):
            self.seen["tools"] += 1
            if name in self.tool_names:
                self.wrong.append(f"tool {name}")
        for asked in TURN.findall(text):
            self.seen["requests"] += 1
            self.wrong += [f"request {p}: {asked}" for p in self.requests if p[0] in asked and contains(asked, p)]

    def words_sums(self, count: int) -> None:
        """Sums told in words: every pair of three-digit numbers in an arithmetic text."""
        rng = random.Random(7)
        for _ in range(count):
            for document in (arithmetic.train(rng), thinking.train(rng)):
                prompt = document[-3][0] if len(document) > 2 else document[0][0]
                numbers = [int(n) for n in NUMBER.findall(prompt)]
                if len(numbers) == 2:
                    self.pair(*numbers, prompt)

    def question(self, question: Question) -> None:
        """A held-out question has to be what its name says."""
        text = question.text()
        if question.skill.startswith("arithmetic"):
            numbers = [int(n) for n in NUMBER.findall(text)]
            if len(numbers) != 2 or not held_pair(*numbers):
                self.wrong.append(f"not held out: {text}")
        if question.skill.startswith("json") and not held_schema(question.expected):
            self.wrong.append(f"not held out: {text}")
        if question.messages and question.skill.startswith(("capitals", "arithmetic", "words", "json", "stories")):
            asked = question.messages[0]["content"].replace(" an ", " a ")
            if not any(
                contains(asked[:1].lower() + asked[1:], _lowered(p)) or contains(asked, p) for p in self.phrasings
            ):
                self.wrong.append(f"phrasing not held out: {asked}")


def _lowered(pieces: list[str]) -> list[str]:
    return [pieces[0][:1].lower() + pieces[0][1:], *pieces[1:]]


def heldout_questions(seed: int) -> Iterable[Question]:
    """All questions of the evaluation."""
    from tools.builtin_model.evaluate import SKILLS

    for skill in SKILLS.values():
        yield from skill.heldout(shuffled(seed))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--per-shard", type=int, default=512, help="documents looked at in each")
    args = parser.parse_args()
    check = Check(args.seed)
    for number in range(args.shards):
        for document in documents(random.Random(f"{args.seed} {number}"), args.per_shard):
            check.document(document)
    check.words_sums(args.shards * 50)
    for question in heldout_questions(args.seed):
        check.question(question)
    for line in check.wrong[:20]:
        print(line[:600])
    print(
        f"looked at {check.seen}; held-out phrasings: {len(check.phrasings)}, "
        f"tool requests: {len(check.requests)}; found in training: {len(check.wrong)}"
    )
    sys.exit(1 if check.wrong else 0)


if __name__ == "__main__":
    main()
