"""Loading folders of every kind; the surface that tools use; agreement with transformers."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.support.tokenizer_zoo import KINDS, byte_fallback, byte_level, save, save_bpe_files, word_piece
from vllm.errors import TokenizerError, ValidationError
from vllm.tokenizer.load import load

SAMPLES = [
    "Hello world",
    " leading",
    "你好，世界 😀",
    "a\n\n  b\tc",
    "<|im_start|>user<|im_end|>",
    "",
    "Ünïcödé <think>x",
]


def theirs(folder, **more):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), **more)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_ids_equal_transformers(kind, tmp_path):
    folder = save(KINDS[kind](), tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast"})
    ours, other = load(folder), theirs(folder)
    for text in SAMPLES:
        for special in (True, False):
            assert ours.encode(text, add_special_tokens=special) == other.encode(text, add_special_tokens=special)
    assert ours.encode_batch(SAMPLES) == other(SAMPLES)["input_ids"]
    assert len(ours) == len(other) and ours.vocab_size == other.vocab_size
    assert ours.get_vocab() == other.get_vocab() and ours.get_added_vocab() == other.get_added_vocab()
    assert ours.max_token_id == max(other.get_vocab().values())


FLAGS = [{"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True}, {}]
FLAGS += [{"add_bos_token": True, "add_eos_token": True}]


@pytest.mark.parametrize("flags", FLAGS)
def test_begin_and_end_flags(flags, tmp_path):
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast", **flags}
    folder = save(byte_fallback(), tmp_path, config)
    ours, other = load(folder), theirs(folder)
    asked, asked_other = load(folder, **flags), theirs(folder, **flags)
    for text in SAMPLES:
        assert ours.encode(text) == other.encode(text)
        assert asked.encode(text) == asked_other.encode(text)
    assert asked.encode("a", "b") == asked_other.encode("a", "b")
    assert ours.encode("a")[0] == ours.bos_token_id and ours.encode("a")[-1] != ours.eos_token_id
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "LlamaTokenizerFast"}))
    llama = load(folder)
    for text in SAMPLES:
        assert llama.encode(text) == asked.encode(text)


def test_special_tokens_and_added_tokens(tmp_path):
    config = {
        "bos_token": None,
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "pad_token": "<|endoftext|>",
        "unk_token": "<brand new>",
        "additional_special_tokens": ["<|im_start|>"],
        "added_tokens_decoder": {"999": {"content": "<tool_call>", "special": False, "normalized": False}},
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    folder = save(byte_level(), tmp_path, config)
    ours, other = load(folder), theirs(folder)
    assert ours.eos_token_id == other.eos_token_id and ours.bos_token_id is None and ours.bos_token is None
    assert ours.unk_token_id == other.unk_token_id and ours.pad_token_id == other.pad_token_id
    assert sorted(ours.all_special_ids) == sorted(other.all_special_ids)
    assert ours.model_max_length == 2048
    text = "x<tool_call>y<brand new>z<|im_end|>"
    assert ours.encode(text) == other.encode(text)
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == "x<tool_call>yz"
    with pytest.raises(AttributeError):
        _ = ours.nothing


def test_ids_of_config_json_name_the_ends(tmp_path):
    tok = byte_level()
    end = tok.token_to_id("<|im_end|>")
    folder = save(tok, tmp_path, config={"model_max_length": 1e30})
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [end, 3], "bos_token_id": None}))
    ours = load(folder)
    assert ours.eos_token == "<|im_end|>" and ours.bos_token is None and ours.model_max_length == int(1e30)


def test_opt_folder_of_vocab_and_merges(tmp_path):
    tok = byte_level(specials=())
    vocab = json.loads(tok.to_str())["model"]["vocab"]
    folder = save_bpe_files(tok, tmp_path / "opt", config={"model_type": "opt"})
    # OPT keeps ids 0..3 for its special tokens
    shifted = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {t: i + 4 for t, i in vocab.items()}
    (folder / "vocab.json").write_text(json.dumps(shifted))
    ours = load(folder)
    assert ours.encode("Hello")[0] == 2 == ours.bos_token_id == ours.eos_token_id and ours.pad_token_id == 1
    assert ours.encode("Hello", add_special_tokens=False)[0] != 2
    assert ours.decode(ours.encode("Hello, 你好 😀"), skip_special_tokens=True) == "Hello, 你好 😀"
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>"}
    config |= {"unk_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    again, other = load(folder), theirs(folder)
    for text in SAMPLES[:4]:
        assert again.encode(text) == other.encode(text) == ours.encode(text)


def test_gpt2_folder_of_vocab_and_merges(tmp_path):
    tok = byte_level(specials=("<|endoftext|>",))
    folder = save_bpe_files(tok, tmp_path, config={"model_type": "gpt2"})
    ours = load(folder)
    assert ours.eos_token == "<|endoftext|>" and ours.encode("Hello")[0] != ours.eos_token_id
    for text in SAMPLES[:4]:
        assert ours.encode(text) == tok.encode(text, add_special_tokens=False).ids
    (folder / "merges.txt").write_text("#version: 0.2\nno such\n")
    with pytest.raises(TokenizerError, match=r"merges\.txt"):
        load(folder)


def test_calling_it(tmp_path):
    ours = load(save(word_piece(), tmp_path, {"pad_token": "[PAD]", "cls_token": "[CLS]"}))
    one, two = ours("the fox"), ours(["the fox", "the quick brown fox"], padding=True)
    assert one.input_ids == one["input_ids"] == ours.encode("the fox")
    assert one.attention_mask == [1] * len(one.input_ids)
    assert len(two.input_ids[0]) == len(two.input_ids[1]) and two.attention_mask[0][-1] == 0
    assert two.input_ids[0][-1] == ours.pad_token_id
    assert "attention_mask" not in ours("a", return_attention_mask=False)
    cut = ours("the quick brown fox", truncation=True, max_length=4).input_ids
    assert len(cut) == 4 and cut[0] == one.input_ids[0] and cut[-1] == one.input_ids[-1]
    assert isinstance(ours(["the"], return_tensors="np").input_ids, np.ndarray)
    with pytest.raises(ValidationError, match=r"torch\.tensor"):
        ours("a", return_tensors="pt")
    assert ours.convert_tokens_to_ids(["the", "zzzzqq"]) == [ours.token_to_id("the"), None]
    ours.unk_token = "[UNK]"
    assert ours.convert_tokens_to_ids("zzzzqq") == ours.unk_token_id is not None
    ids = ours.encode("the fox", add_special_tokens=False)
    assert ours.convert_ids_to_tokens(ids) == ours.tokenize("the fox") and ours.decode(ids[0]) == "the"
    assert ours.batch_decode([ids, ids]) == ["the fox"] * 2
    assert ours.convert_ids_to_tokens(10**9) is None and ours.decode([-5, 10**9, 2**40]) == ""


def test_pad_token_can_be_set_as_tools_do(tmp_path):
    ours = load(save(byte_level(), tmp_path, {"eos_token": "<|im_end|>"}))
    assert ours.pad_token is None and ours.unk_token is None
    ours.pad_token_id = ours.eos_token_id
    assert ours.pad_token == "<|im_end|>"
    assert ours.add_special_tokens({"pad_token": "<|pad|>"}) == 1
    assert ours.pad_token_id == len(ours) - 1 == ours.max_token_id
    assert ours.decode([ours.pad_token_id], skip_special_tokens=True) == ""


@pytest.mark.parametrize("bad", [5, None, b"x", ["a", 3], "\ud800"])
def test_what_is_no_text(bad, tmp_path):
    ours = load(save(byte_level(), tmp_path))
    with pytest.raises(ValidationError, match="text"):
        ours.encode_batch(bad if isinstance(bad, list) else [bad])


def test_a_backend_that_panics_is_an_error_of_the_text(tmp_path, monkeypatch):
    """The class that Rust's panics have in Python is no Exception, so nobody below the server would catch it."""

    class PanicException(BaseException):
        pass

    class Panics:
        def encode_batch_fast(self, texts, add_special_tokens):
            raise PanicException("retry-limit-in-match over")

    tokenizer = load(save(byte_level(), tmp_path))
    monkeypatch.setattr(tokenizer, "backend_tokenizer", Panics())
    with pytest.raises(ValidationError, match="without a break"):
        tokenizer.encode("x" * 100)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer folder"):
        load(tmp_path / "none")
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(TokenizerError, match="JSON object"):
        load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match="cannot be read as JSON"):
        load(tmp_path)


def test_truncation_baked_into_a_file_is_taken_out(tmp_path):
    tok = byte_level()
    tok.enable_truncation(3)
    tok.enable_padding(length=9)
    ours = load(save(tok, tmp_path))
    assert len(ours.encode("a long enough text, is it not?")) > 9


def test_templates_from_everywhere(tmp_path):
    folder = save(
        byte_level(),
        tmp_path,
        {"chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]},
    )
    ours = load(folder)
    assert ours.get_chat_template() == "A" and ours.get_chat_template(tools=[{}]) == "B"
    assert ours.get_chat_template("tool_use") == "B" and ours.get_chat_template("{{ x }}") == "{{ x }}"
    (folder / "chat_templates").mkdir()
    (folder / "chat_templates" / "rag.jinja").write_text("C")
    (folder / "chat_template.jinja").write_text("D")
    assert load(folder).chat_template == {"default": "D", "tool_use": "B", "rag": "C"}
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_templates" / "rag.jinja").unlink()
    assert load(folder).chat_template == "D"
    (folder / "chat_template.jinja").unlink()
    assert load(folder).chat_template is None
    with pytest.raises(ValidationError, match="no chat template"):
        load(folder).get_chat_template()


def test_python_tokenizer_through_transformers(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    from vllm.tokenizer.detokenizer import Detokenizer

    ours, other = load(tmp_path), theirs(tmp_path)
    text = "Hello, 你好 😀!"
    ids = ours.encode(text)
    assert ids == other.encode(text) and ids[-1] == ours.eos_token_id == other.eos_token_id
    assert ours.decode(ids, skip_special_tokens=True) == text
    stream = Detokenizer(ours)
    pieces = [stream.append([i]) for i in ids]
    assert "".join(pieces) + stream.finish() == text and not any("\ufffd" in p for p in pieces)
    assert len(ours) == len(other) and ours.convert_ids_to_tokens(10**6) is None


def test_remote_code_is_not_run(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    config = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(TokenizerError, match="trust_remote_code=True"):
        load(tmp_path)


def test_neither_torch_nor_transformers_is_imported(tmp_path):
    folder = save(byte_level(), tmp_path)
    code = (
        "import sys; from vllm.tokenizer.load import load; from vllm.tokenizer.detokenizer import Detokenizer; "
        f"t = load({str(folder)!r}); Detokenizer(t).append(t.encode('Hello')); "
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("head", "package"), [(b"\n\x0b\n\x05<unk>", "sentencepiece"), (b"IQ== 0\n", "tiktoken")])
def test_missing_package_is_named(head, package, tmp_path, monkeypatch):
    monkeypatch.setattr("vllm.tokenizer.foreign._is_installed", lambda name: name != package)
    (tmp_path / "tokenizer.model").write_bytes(head)
    with pytest.raises(TokenizerError, match=f"pip install {package}`"):
        load(tmp_path)
