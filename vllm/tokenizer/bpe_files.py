"""A byte-level BPE tokenizer from vocab.json and merges.txt, as GPT-2 and OPT folders ship it.

Does not know: special tokens (tokenizer/load adds them). Callers: tokenizer/load.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vllm.errors import TokenizerError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer


def build(folder: Path, add_prefix_space: bool = False) -> Tokenizer:
    """The tokenizer of a folder with vocab.json and merges.txt. Raises TokenizerError naming the bad file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    try:
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        merges = _merges((folder / "merges.txt").read_text(encoding="utf-8"))
        tokenizer = Tokenizer(
            models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="")
        )
    except Exception as error:  # why: the library raises bare Exception for a merge that is not in the vocabulary
        raise TokenizerError(f"vocab.json and merges.txt in {folder} do not make a tokenizer: {error}.") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _merges(text: str) -> list[tuple[str, str]]:
    """The pairs of merges.txt; the `#version` line and blank lines are not pairs."""
    lines = text.split("\n")
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    pairs = []
    for line in lines:
        if line:
            left, _, right = line.partition(" ")
            pairs.append((left, right))
    return pairs
