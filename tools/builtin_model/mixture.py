"""The training stream: which skill how often, and shards of packed tokens.

A shard is a pure function of (seed, number), so workers make them in any order, a run resumes at any shard, and
`check_holdout.py` can look at the very text that the training read.
"""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tools.builtin_model.documents import Document
from tools.builtin_model.skills import (
    arithmetic,
    capitals,
    conversation,
    facts,
    plain,
    records,
    stories,
    thinking,
    tools,
    words,
)

Maker = Callable[[random.Random], Document]
# Share of the documents, not of the tokens.
WEIGHTS: list[tuple[float, Maker]] = [
    (0.18, capitals.train),
    (0.20, arithmetic.train),
    (0.05, facts.train),
    (0.03, facts.dialogue),
    (0.09, words.train),
    (0.04, plain.train),
    (0.04, stories.train),
    (0.07, records.train),
    (0.05, thinking.train),
    (0.24, tools.train),
    (0.04, conversation.train),
]
LEARNED = np.uint16(1 << 15)


def documents(rng: random.Random, count: int) -> list[Document]:
    """`count` documents of the mixture."""
    makers = rng.choices([m for _, m in WEIGHTS], [w for w, _ in WEIGHTS], k=count)
    return [make(rng) for make in makers]


class Packer:
    """Makes shards with one tokenizer file."""

    def __init__(self, tokenizer: Path, seed: int) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.seed = seed

    def encode(self, batch: list[Document]) -> list[np.ndarray]:
        """Each document as uint16: the token, with the top bit set where the loss counts it."""
        segments = [segment for document in batch for segment in document]
        encoded = self.tokenizer.encode_batch_fast([text for text, _ in segments], add_special_tokens=False)
        ids = [np.array(e.ids, dtype=np.uint16) for e in encoded]
        marked = [i | LEARNED if learn else i for i, (_, learn) in zip(ids, segments, strict=True)]
        found, start = [], 0
        for document in batch:
            found.append(np.concatenate(marked[start : start + len(document)]))
            start += len(document)
        return found

    def shard(self, number: int, length: int, rows: int) -> np.ndarray:
        """`rows` rows of `length` + 1 tokens. Each row begins with a document, as every prompt does."""
        rng = random.Random(f"{self.seed} {number}")
        out = np.empty((rows, length + 1), dtype=np.uint16)
        row = at = 0
        while row < rows:
            for tokens in self.encode(documents(rng, 512)):
                part = tokens[: length + 1 - at]
                out[row, at : at + len(part)] = part
                at += len(part)
                if at == length + 1:
                    row, at = row + 1, 0
                    if row == rows:
                        break
        return out
