"""Makes a folder like facebook/opt-125m on the hub: float16 `pytorch_model.bin`, vocab.json and merges.txt only.

Shape is a parameter; the default is the real 125M one. Weights are random, seeded. `cache_layout` wraps a folder as the
hub cache does: blobs, and a snapshot of symlinks.
"""

import json
import os
from pathlib import Path

WORDS = (
    "Hello, my name is The president of the United States is The capital of France is The future of AI is a b c " * 40
)


def write_opt(folder: Path, *, prefix: str = "model.", hidden: int = 768, layers: int = 12, seed: int = 0) -> Path:
    """A whole OPT checkpoint; `prefix` is what tensor names start with ("model." or "")."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    vocab = 50272
    config = {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "ffn_dim": 4 * hidden,
        "num_attention_heads": 12,
        "num_hidden_layers": layers,
        "max_position_embeddings": 2048,
        "vocab_size": vocab,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "torch_dtype": "float16",
        "_remove_final_layer_norm": False,
    }
    _json(folder / "config.json", config)
    _json(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1})
    write_tokenizer(folder)
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int, scale: float = 0.02) -> "torch.Tensor":
        return (torch.randn(*shape, generator=g) * scale).half()

    w = {
        "embed_tokens.weight": rand(vocab, hidden),
        "embed_positions.weight": rand(2050, hidden),
        "final_layer_norm.weight": 1 + rand(hidden),
        "final_layer_norm.bias": rand(hidden),
    }
    for i in range(layers):
        at = f"layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            w[f"{at}.self_attn.{name}.weight"], w[f"{at}.self_attn.{name}.bias"] = rand(hidden, hidden), rand(hidden)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            w[f"{at}.{name}.weight"], w[f"{at}.{name}.bias"] = 1 + rand(hidden), rand(hidden)
        w[f"{at}.fc1.weight"], w[f"{at}.fc1.bias"] = rand(4 * hidden, hidden), rand(4 * hidden)
        w[f"{at}.fc2.weight"], w[f"{at}.fc2.bias"] = rand(hidden, 4 * hidden), rand(hidden)
    named = {f"{prefix}decoder.{name}": tensor for name, tensor in w.items()}
    if prefix:
        named["lm_head.weight"] = w["embed_tokens.weight"]  # why: as torch.save keeps the tied head of the original
    torch.save(named, folder / "pytorch_model.bin")
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE as GPT-2 and OPT ship it: vocab.json and merges.txt, `</s>` in front of every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator([WORDS], trainer)
    bpe.model.save(str(folder))
    special_tokens = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    _json(folder / "special_tokens_map.json", special_tokens)
    more = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, "errors": "replace"}
    _json(folder / "tokenizer_config.json", {**special_tokens, **more})


def cache_layout(folder: Path, root: Path, name: str = "facebook/opt-125m", commit: str = "27dcfa74d334") -> Path:
    """`folder` as the hub cache keeps it under `root`; returns `root/models--owner--name`."""
    home = root / ("models--" + name.replace("/", "--"))
    snapshot, blobs, refs = home / "snapshots" / commit, home / "blobs", home / "refs"
    for made in (snapshot, blobs, refs):
        made.mkdir(parents=True, exist_ok=True)
    (refs / "main").write_text(commit)
    for i, file in enumerate(sorted(folder.iterdir())):
        blob = blobs / f"{i:040x}"
        os.link(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return home


def _json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data), "utf-8")
