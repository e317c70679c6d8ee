"""The shipped checkpoint: transformers and the trainer's own model agree on it, and it answers."""

from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from tools.builtin_model.documents import ask
from tools.builtin_model.generate import Generator
from tools.builtin_model.model import rope_tables

ASSETS = Path(__file__).parents[3] / "vllm" / "builtin"


def own() -> Generator:
    return Generator(ASSETS / "model.safetensors", ASSETS / "tokenizer.json", "cpu", torch.float32)


def test_transformers_computes_the_same_logits():
    model = own().model
    other = LlamaForCausalLM.from_pretrained(ASSETS, dtype=torch.float32).eval()
    tokens = torch.randint(0, 6144, (2, 70), generator=torch.Generator().manual_seed(0))
    cos, sin = (t[:70] for t in rope_tables(model.shape, "cpu"))
    with torch.inference_mode():
        ours = model.hidden_states(tokens, cos, sin) @ model.embed_tokens.weight.T
        theirs = other(tokens).logits
    assert torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs) < 1e-5


def test_it_answers_in_a_ragged_batch():
    prompts = [
        "The capital of France is",
        "法国首都是",
        ask("What is 123 + 456?", "")[0][0] + "<|im_start|>assistant\n",
    ]
    answers = own().texts(prompts, 40)
    assert [stopped for _, stopped in answers] == [True, True, True]
    assert answers[0][0].startswith(" Paris.")
    assert answers[1][0].startswith("巴黎。")
    assert answers[2][0] == "123 + 456 = 579"
