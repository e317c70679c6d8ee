"""Incremental text: equal to decoding at once, whole characters only, nothing of the prompt."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tokenizer_zoo import KINDS, TEXT, save
from vllm.tokenizer.detokenizer import Detokenizer
from vllm.tokenizer.load import load
from vllm.tokenizer.stop import StopChecker


@pytest.fixture(scope="module", params=sorted(KINDS))
def tok(request, tmp_path_factory):
    return load(save(KINDS[request.param](), tmp_path_factory.mktemp(request.param)))


def streamed(tok, ids, prompt=(), skip=True, rng=None):
    stream = Detokenizer(tok, prompt, skip)
    pieces, at = [], 0
    while at < len(ids):
        size = rng.randint(1, 4) if rng else 1
        pieces.append(stream.append(ids[at : at + size]))
        at += size
    pieces.append(stream.finish())
    return pieces


@pytest.mark.parametrize("skip", [True, False])
def test_random_ids_and_cuts_equal_whole_decode(tok, skip):
    rng = random.Random(5)
    for _ in range(400):
        ids = [rng.randrange(len(tok) + 20) for _ in range(rng.randint(1, 24))]
        assert "".join(streamed(tok, ids, skip=skip, rng=rng)) == tok.decode(ids, skip_special_tokens=skip), ids


def test_decode_equals_the_library(tok):
    rng = random.Random(6)
    for n in range(600):
        ids = [rng.randrange(len(tok)) for _ in range(rng.randint(1, 16))]
        if n % 2:
            text = "".join(rng.choice("abcé你😀 \n▁'.") for _ in range(12))
            ids = tok.encode(text)
        theirs = tok.backend_tokenizer.decode(ids, skip_special_tokens=bool(n % 3))
        if tok.pieces is not None and tok.pieces.errors != "replace" and "\ufffd" in theirs:
            continue  # one bad byte makes the library spoil its whole run of bytes; we keep the good characters
        assert tok.decode(ids, skip_special_tokens=bool(n % 3)) == theirs


def test_every_delta_is_whole_characters(tok):
    text = "".join(TEXT[:5])
    pieces = streamed(tok, tok.encode(text, add_special_tokens=False))
    if "\ufffd" not in tok.decode(tok.encode(text)):
        assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == tok.decode(tok.encode(text, add_special_tokens=False), skip_special_tokens=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_prompt_never_leaks_and_joins(tok, data):
    text = data.draw(st.sampled_from(TEXT[:5])) * 2
    ids = tok.encode(text, add_special_tokens=False)
    cut = data.draw(st.integers(1, len(ids) - 1))
    prompt, rest = ids[:cut], ids[cut:]
    whole, before = tok.decode(ids, skip_special_tokens=True), tok.decode(prompt, skip_special_tokens=True)
    if "\ufffd" in whole:  # a token that is no character of its own: nothing to compare with
        return
    out = "".join(streamed(tok, rest, prompt))
    assert out == whole[len(before.rstrip("\ufffd")) :]


def test_prompt_that_ends_inside_a_character(tmp_path):
    tok = load(save(KINDS["byte_level"](), tmp_path))
    emoji = "🤗"
    spelled = tok.backend_tokenizer.pre_tokenizer.pre_tokenize_str(emoji)[0][0]
    ids = [tok.token_to_id(c) for c in spelled]
    assert len(ids) == 4
    assert "".join(streamed(tok, ids[2:], ids[:2])) == emoji
    hello = tok.encode("hello")
    assert "".join(streamed(tok, hello, ids[:2])) == "hello"
    assert "".join(streamed(tok, [], ids[:2])) == ""
    assert "".join(streamed(tok, ids[:2])) == "\ufffd"


def test_leading_space_follows_the_prompt(tmp_path):
    tok = load(save(KINDS["byte_fallback"](), tmp_path))
    ids = tok.encode("fox", add_special_tokens=False)
    assert "".join(streamed(tok, ids)) == "fox"
    assert "".join(streamed(tok, ids, [tok.token_to_id("<s>")])) == "fox"
    assert "".join(streamed(tok, ids, tok.encode("The"))) == " fox"


def test_broken_bytes_keep_their_neighbours(tmp_path):
    tok = load(save(KINDS["byte_fallback"](), tmp_path))
    ids = [tok.token_to_id(f"<0x{b:02X}>") for b in "你".encode() + b"\xff" + "好".encode() + b"\xe4\xbd"]
    assert tok.decode(ids) == "你\ufffd好\ufffd\ufffd" == "".join(streamed(tok, ids))


# ---- stop strings ----------------------------------------------------------------------------------------------------


def slow_stop(text, stops, include):
    """The definition: the first moment at which the text so far ends with a stop."""
    for end in range(1, len(text) + 1):
        ended = [s for s in stops if text[:end].endswith(s)]
        if ended:
            stop = max(ended, key=len)
            return (text[:end] if include else text[: end - len(stop)]), stop
    return text, None


@given(
    st.text("ab<|", max_size=30),
    st.lists(st.text("ab<|", min_size=1, max_size=5), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), max_size=30),
    st.booleans(),
)
def test_stop_strings_on_any_cuts(text, stops, cuts, include):
    checker, shown, stop, at = StopChecker(stops, include), "", None, 0
    for size in [*cuts, len(text) + 1]:
        piece, at = text[at : at + size], at + size
        delta, stop = checker.feed(piece, is_last=at >= len(text))
        shown += delta
        if stop:
            break
    assert (shown, stop) == slow_stop(text, stops, include)
    assert checker.offset == len(shown)
    if stop:
        assert checker.feed("more") == ("", stop)


def test_only_a_possible_beginning_is_held():
    checker = StopChecker(["<|end|>"])
    assert checker.feed("Hi <")[0] == "Hi "
    assert checker.feed("b")[0] == "<b"
    assert checker.feed("!<|en")[0] == "!"
    assert checker.feed("d|> tail") == ("", "<|end|>")
    assert checker.feed("more") == ("", "<|end|>")


def test_stops_before_min_tokens_do_not_count():
    checker = StopChecker(["ab"])
    assert checker.feed("xaba", may_stop=False) == ("xab", None)
    assert checker.feed("b") == ("", "ab")
    assert checker.offset == 3


def test_no_stops():
    assert StopChecker([]).feed("abc") == ("abc", None)


def test_the_bytes_of_tokens_put_together_are_those_of_the_text(tok):
    """No space is lost where tokens meet, and characters of several tokens are whole; what the whole text loses at its
    start alone may be more."""
    if tok.pieces is None:
        return  # tokens of such a decoder depend on each other
    rng = random.Random(9)
    for _ in range(300):
        text = "".join(rng.choice("ab hé你😀 \n'.") for _ in range(rng.randint(1, 14)))
        ids = tok.encode(text, add_special_tokens=False)
        joined, whole = b"".join(map(tok.token_bytes, ids)).decode("utf-8", tok.pieces.errors), tok.decode(ids)
        assert joined.endswith(whole) and joined.removesuffix(whole).strip(" ") == "", ids
