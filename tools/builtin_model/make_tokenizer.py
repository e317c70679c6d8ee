"""Trains the tokenizer on the generator's own text and writes the tokenizer files of the assets folder.

Byte-level BPE, byte-complete. Every digit and every Chinese character is its own piece before merging, so that
numbers and Chinese names read the same in every context.
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.builtin_model import mixture
from tools.builtin_model.data_files import FOLDER
from tools.builtin_model.lexicon import open_text

VOCAB_SIZE = 6144
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")  # visible: parsers read them in the text


def pattern() -> str:
    """Written without class subtraction, which the tokenizers library spells differently from others."""
    letters = r"(?:(?!\p{Han})[\p{L}\p{M}])+"
    return (
        rf"\p{{N}}|\p{{Han}}|'(?:s|t|re|ve|m|ll|d)\b| ?{letters}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+|\s*[\r\n]|\s+(?!\S)|\s+"
    )


def train(seed: int, count: int) -> Tokenizer:
    """BPE on `count` documents, with each rare Chinese character of the data counted often enough to become a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern()), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"tokenizer {seed}")
    names = set(SPECIAL + MARKS)
    texts = ["".join(text for text, _ in d) for d in mixture.documents(rng, count)]
    for name in names:
        texts = [t.replace(name, "\n") for t in texts]
    data = open_text()
    characters = Counter(c for text in data for c in text if "\u4e00" <= c <= "\u9fff")
    texts += [c * 200 for c in sorted(characters)] + data * 20
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[*SPECIAL, *MARKS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`; the think and tool marks are added but not special."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    content = json.loads(path.read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["special"] = token["content"] in SPECIAL
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in content["added_tokens"]}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": decoder,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "chat_template": (FOLDER / "chat_template.jinja").read_text(encoding="utf-8"),
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("vllm/builtin"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=60_000)
    args = parser.parse_args()
    write(train(args.seed, args.documents), args.out)


if __name__ == "__main__":
    main()
