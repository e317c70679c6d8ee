"""Small tokenizers of every kind, trained on a few lines, for tests."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog. It's 12,345 o'clock!",
    "Hello, my name is Ada. How are you today?",
    "你好，我的名字是小明。美国总统是谁？法国首都是巴黎。",
    "def main():\n    return {'a': [1, 2, 3]}\n\n",
    "Привет мир, как дела? ¿Qué tal? Ça va très bien 😀👍🏽",
] * 8
ENDS = ["<s>", "</s>", "<unk>"]


def byte_level(specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), size=600):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    tok.add_tokens(["<think>", "plain added", "é"])
    return tok


def byte_fallback(strip=True, size=500):
    """As Llama 2's: pieces with a leading mark, 256 byte tokens, one leading space lost."""
    raw = [*ENDS, *(f"<0x{b:02X}>" for b in range(256))]
    tok = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ascii_only = ["".join(c for c in line if ord(c) < 128) for line in TEXT]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=raw, show_progress=False)
    tok.train_from_iterator((line.replace("\n", "") for line in ascii_only), trainer)
    state = json.loads(tok.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in ENDS]
    tok = Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tok.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    bos = tok.token_to_id("<s>")
    tok.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", bos)])
    return tok


def metaspace(size=500):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=ENDS, unk_token="<unk>", show_progress=False)
    tok.train_from_iterator(TEXT, trainer)
    return tok


def word_piece(size=400):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=size, special_tokens=specials, show_progress=False)
    )
    ids = [(t, tok.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    tok.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ids)
    return tok


def word_level(size=300):
    """No decoder at all: tokens are joined by blanks."""
    tok = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.train_from_iterator(TEXT, trainers.WordLevelTrainer(vocab_size=size, special_tokens=ENDS, show_progress=False))
    return tok


def bpe_suffix(size=400):
    """Words end with </w>, as in the first BPE models."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=ENDS, end_of_word_suffix="</w>", show_progress=False)
    tok.train_from_iterator(TEXT, trainer)
    return tok


KINDS = {
    "word_level": word_level,
    "bpe_suffix": bpe_suffix,
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "byte_fallback_no_strip": lambda: byte_fallback(strip=False),
    "metaspace": metaspace,
    "word_piece": word_piece,
}


def save(tok, folder: Path, config=None, **files):
    """A folder with tokenizer.json, tokenizer_config.json and other JSON files given by name."""
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {}))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def save_bpe_files(tok, folder: Path, **files):
    """The same vocabulary as vocab.json and merges.txt only."""
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(tok.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
