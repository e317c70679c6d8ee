"""The built-in model's folder reads the same here and in transformers: ids, text, chats with and without tools."""

from pathlib import Path

import pytest

import vllm
from vllm.entrypoints.helpers import get_tokenizer
from vllm.tokenizer.detokenizer import Detokenizer

FOLDER = Path(vllm.__file__).parent / "builtin"
TEXTS = ["Hello, my name is", "你好，我的名字是", "12 + 345 = 357", "a  b\n\n\tc 😀 ü", '{"name": "x", "n": [1, 2]}']
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "get_time", "arguments": {}}}]}
CHATS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "2 + 2?"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
    [{"role": "user", "content": "Time?"}, CALL, {"role": "tool", "content": "noon"}],
]


@pytest.fixture(scope="module")
def both():
    from transformers import AutoTokenizer

    return get_tokenizer(FOLDER), AutoTokenizer.from_pretrained(str(FOLDER))


def test_ids_and_text(both):
    ours, other = both
    assert ours.eos_token_id == other.eos_token_id and ours.bos_token_id == other.bos_token_id
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == other.encode(text)
        assert ours.decode(ids, skip_special_tokens=True) == other.decode(ids, skip_special_tokens=True) == text
        stream = Detokenizer(ours)
        assert "".join(stream.append([i]) for i in ids) + stream.finish() == text


@pytest.mark.parametrize("chat", CHATS, ids=range(len(CHATS)))
def test_chats(chat, both):
    ours, other = both
    for options in ({}, {"tools": [TOOL]}, {"enable_thinking": True}, {"enable_thinking": False}):
        want = other.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)
        assert ours.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options) == want
