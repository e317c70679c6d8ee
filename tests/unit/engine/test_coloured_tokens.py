"""The tokens of a stream's log-probabilities, put together, are its text: however steps cut it, and whatever waits."""

import random

import pytest

from tests.support.tokenizer_zoo import byte_fallback, byte_level, metaspace, save
from vllm.engine.deliver import Delivery
from vllm.engine.folder import decoder_maker, token_text
from vllm.engine.intake import Taken
from vllm.entrypoints.openai.logprobs import chat_logprobs
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import TokenLogprobs
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tokenizer.load import load

WORDS = ["he", " ", "cried", ".", "\n", "  ", "I'm", " a", "你好", "😀", "def main():", " return"]


@pytest.fixture(scope="module", params=[byte_level, byte_fallback, metaspace])
def tok(request, tmp_path_factory):
    return load(save(request.param(), tmp_path_factory.mktemp(request.param.__name__)))


def stream(tok, ids: list[int], stop: list[str], dice: random.Random) -> list[tuple[str, list[dict]]]:
    """(text, tokens with their bytes) of every event."""
    params = SamplingParams(max_tokens=len(ids), logprobs=0, stop=stop, output_kind=RequestOutputKind.DELTA)
    prompt = tok.encode("Say it.", add_special_tokens=False)
    request = Request("r", (TokenSpan(tuple(prompt)),), params, (1,), 500, frozenset())
    delivery = Delivery(Taken(request, "", prompt, params), decoder_maker(tok), token_text(tok))
    events, at = [], 0
    while at < len(ids) and not delivery.finished:
        some = ids[at : at + dice.randint(1, 4)]
        at += len(some)
        told = [TokenLogprobs([one], [-0.5], [1]) for one in some]
        update = SequenceUpdate("r", 0, some, told, finish_reason="length" if at == len(ids) else None)
        output, _ = delivery.feed(update)
        c = output.outputs[0]
        events.append((c.text, chat_logprobs(c.token_ids, c.logprobs, 0, False, tok.token_bytes)["content"]))
    return events


@pytest.mark.parametrize("stop", [[], ["cried a"], ["\n\n", " I"]], ids=["none", "one", "two"])
def test_tokens_are_the_text_for_any_cut(tok, stop):
    dice = random.Random(11)
    for _ in range(150):
        said = "".join(dice.choice(WORDS) for _ in range(dice.randint(1, 12)))
        ids = tok.encode(said, add_special_tokens=False)
        events = stream(tok, ids, stop, dice)
        text = "".join(event[0] for event in events)
        tokens = [one for event in events for one in event[1]]
        joined = b"".join(bytes(one["bytes"]) for one in tokens).decode("utf-8", tok.pieces.errors)
        assert joined.startswith(text), (ids, events)
        assert stop or joined == text
        upto = 0
        for shown, told in events:  # no text comes before the token that it is made of
            upto += sum(len(one["bytes"]) for one in told)
            text = text.removeprefix(shown)
            assert len(joined.encode()) - len(text.encode()) <= upto or stop
        for one in tokens:
            assert one["token"] == bytes(one["bytes"]).decode("utf-8", "replace")
