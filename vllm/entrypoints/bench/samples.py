"""What is asked for: prompts and output lengths, random or from a file of conversations.

Does not know: servers, engines. Invariant: the same seed makes the same samples, in any Python.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from typing import Any

from vllm.errors import ValidationError

DATASETS = ("random", "sharegpt")
FIRST_ID, NO_TOKENIZER_IDS = 2, 8000
"""Ids below the first are special in most vocabularies; without a tokenizer ids stay below what any model has."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request to make. `prompt_len` in tokens."""

    prompt: str | list[int]
    prompt_len: int
    output_len: int


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Which prompts, in vLLM's words."""
    group = parser.add_argument_group("dataset options")
    group.add_argument("--dataset-name", choices=DATASETS, default="random", help="(default: %(default)s)")
    group.add_argument("--dataset-path", metavar="FILE", help="the JSON file of sharegpt conversations")
    group.add_argument("--num-prompts", type=int, default=1000, help="requests (default: %(default)s)")
    group.add_argument("--random-input-len", type=int, default=1024, help="prompt tokens (default: %(default)s)")
    group.add_argument("--random-output-len", type=int, default=128, help="output tokens (default: %(default)s)")
    group.add_argument(
        "--random-range-ratio", type=float, default=0.0, help="lengths within (1 - R, 1 + R) x (default: 0)"
    )
    group.add_argument(
        "--random-prefix-len", type=int, default=0, help="tokens that all prompts begin with (default: 0)"
    )
    group.add_argument("--sharegpt-output-len", type=int, help="output tokens in place of those of the file")


def make_samples(arguments: argparse.Namespace, tokenizer: Any, vocab: int, seed: int) -> list[Sample]:
    """The samples that the flags ask for, prompts as token ids. Raises ValidationError naming the flag."""
    if arguments.num_prompts < 1:
        raise ValidationError.of("num_prompts", arguments.num_prompts, "at least 1")
    if arguments.dataset_name == "sharegpt":
        return _conversations(arguments, tokenizer, seed)
    for name, least in (("random_input_len", 1), ("random_output_len", 1), ("random_prefix_len", 0)):
        if getattr(arguments, name) < least:
            raise ValidationError.of(name, getattr(arguments, name), f"at least {least}")
    ratio = arguments.random_range_ratio
    if not 0 <= ratio < 1:
        raise ValidationError.of("random_range_ratio", ratio, "at least 0 and below 1")
    rng = random.Random(seed)
    prefix = random_ids(rng, arguments.random_prefix_len, vocab)

    def length(middle: int) -> int:
        return rng.randint(max(1, round(middle * (1 - ratio))), round(middle * (1 + ratio)))

    samples = []
    for _ in range(arguments.num_prompts):
        ids = prefix + random_ids(rng, length(arguments.random_input_len), vocab)
        samples.append(Sample(ids, len(ids), length(arguments.random_output_len)))
    return samples


def random_ids(rng: random.Random, num: int, vocab: int) -> list[int]:
    """Token ids, none of the first few."""
    return [rng.randrange(min(FIRST_ID, vocab - 1), vocab) for _ in range(num)]


def as_text(samples: list[Sample], tokenizer: Any, seed: int) -> list[Sample]:
    """The same with prompts as text that has as many tokens, or as near as text comes to it."""
    rng, special = random.Random(seed), set(tokenizer.all_special_ids)
    usual = [i for i in range(len(tokenizer)) if i not in special]
    return [_said(sample, tokenizer, rng, usual) for sample in samples]


def _said(sample: Sample, tokenizer: Any, rng: random.Random, usual: list[int]) -> Sample:
    if isinstance(sample.prompt, str):
        return sample
    ids = sample.prompt
    # why: text of random tokens is read back as other tokens; a few rounds of cutting and filling settle its length.
    for _ in range(8):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) == sample.prompt_len:
            break
        missing = sample.prompt_len - len(ids)
        ids = [*ids, *(rng.choice(usual) for _ in range(missing))] if missing > 0 else ids[: sample.prompt_len]
    return Sample(text, len(tokenizer.encode(text, add_special_tokens=False)), sample.output_len)


def _conversations(arguments: argparse.Namespace, tokenizer: Any, seed: int) -> list[Sample]:
    """First question and length of the first answer of each conversation; too short and too long ones are left out."""
    path = arguments.dataset_path
    if path is None:
        raise ValidationError("dataset_name sharegpt needs dataset_path, its JSON file.", field="dataset_path")
    if tokenizer is None:
        raise ValidationError("dataset_name sharegpt needs a tokenizer; name one.", field="tokenizer")
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise ValidationError(f"dataset_path {path}: {error}", field="dataset_path", value=path) from None
    turns = (
        [c.get("conversations", c.get("conversation")) for c in content if isinstance(c, dict)]
        if isinstance(content, list)
        else []
    )
    pairs = [(t[0]["value"], t[1]["value"]) for t in turns if isinstance(t, list) and len(t) >= 2]
    random.Random(seed).shuffle(pairs)
    fixed, samples = arguments.sharegpt_output_len, []
    for question, reply in pairs:
        if len(samples) == arguments.num_prompts:
            break
        ids = tokenizer.encode(question)
        output_len = fixed or len(tokenizer.encode(reply, add_special_tokens=False))
        if 4 <= len(ids) <= 1024 and output_len >= 4 and len(ids) + output_len <= 2048:
            samples.append(Sample(question, len(ids), output_len))
    if not samples:
        raise ValidationError(
            f"dataset_path {path} has no conversation of usable length; each must be an object with 'conversations', "
            "a list of objects with 'value'.",
            field="dataset_path",
        )
    return samples
