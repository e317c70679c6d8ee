"""LLM on the built-in model: what every keyword of a request does to the answer, and that a bad one harms nobody."""

import gc
import math
from collections.abc import Iterator
from typing import Any

import pytest

from vllm import LLM, RequestOutput, SamplingParams
from vllm.errors import EngineDeadError, EngineGenerateError
from vllm.sampling_params import BeamSearchParams

FRANCE = "The capital of France is"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(max_model_len=1024, max_num_seqs=64) as made:
        yield made


def one(llm: LLM, prompt: Any = FRANCE, **params: Any) -> RequestOutput:
    """One prompt, greedy unless said otherwise."""
    [output] = llm.generate(prompt, SamplingParams(**{"temperature": 0, "max_tokens": 12, **params}), use_tqdm=False)
    return output


def test_greedy_answer_and_its_fields(llm: LLM) -> None:
    output = one(llm)
    assert output.prompt == FRANCE and output.finished and output.outputs[0].text.startswith(" Paris")
    assert output.prompt_token_ids == llm.tokenize(FRANCE)
    assert output.outputs[0].finish_reason == "stop" and output.outputs[0].stop_reason is None
    m = output.metrics
    assert m is not None and m.queued_ts <= m.scheduled_ts <= m.first_token_ts <= m.last_token_ts
    assert m.num_generation_tokens == len(output.outputs[0].token_ids)


def test_many_prompts_keep_their_order(llm: LLM) -> None:
    prompts = [FRANCE, {"prompt_token_ids": llm.tokenize("The capital of Japan is")}, {"prompt": "法国首都是"}]
    params = [SamplingParams(temperature=0, max_tokens=n) for n in (1, 2, 3)]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert [len(o.outputs[0].token_ids) for o in outputs] == [1, 2, 3]
    assert [o.prompt for o in outputs] == [FRANCE, None, "法国首都是"]
    assert "Tokyo" in one(llm, prompts[1]).outputs[0].text


def test_the_longest_of_a_batch_are_served_first() -> None:
    prompts = [FRANCE, "Red and blue", "The sea is", "My friend", "In winter"]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (2, 12, 2, 12, 2)]
    with LLM(max_model_len=256, max_num_seqs=2) as few:
        outputs = few.generate(prompts, params, use_tqdm=False)
        alone = [few.generate(*pair, use_tqdm=False)[0] for pair in zip(prompts, params, strict=True)]
    assert [o.prompt for o in outputs] == prompts
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in alone]
    began = [o.metrics.scheduled_ts for o in outputs if o.metrics is not None]
    assert max(began[1], began[3]) < began[0] <= began[2] <= began[4]


def test_n_gives_different_texts_and_a_seed_repeats_them(llm: LLM) -> None:
    ask = {"n": 4, "temperature": 1.0, "seed": 7, "prompt": "Hello, my name is"}
    first, again = one(llm, **ask), one(llm, **ask)
    texts = [c.text for c in first.outputs]
    assert [c.index for c in first.outputs] == [0, 1, 2, 3] and len(set(texts)) > 1
    assert texts == [c.text for c in again.outputs]
    free = {one(llm, "Hello, my name is", temperature=1.0).outputs[0].text for _ in range(4)}
    assert len(free) > 1, "requests without a seed must differ"


def test_stop_strings(llm: LLM) -> None:
    whole = one(llm, "The future of AI is", max_tokens=40).outputs[0]
    word = whole.text.split()[2]
    cut = one(llm, "The future of AI is", max_tokens=40, stop=[word], logprobs=0).outputs[0]
    assert cut.text == whole.text[: whole.text.index(word)] and cut.stop_reason == word and cut.finish_reason == "stop"
    assert cut.logprobs is not None and len(cut.logprobs) == len(cut.token_ids) < len(whole.token_ids)
    kept = one(llm, "The future of AI is", max_tokens=40, stop=[word], include_stop_str_in_output=True).outputs[0]
    assert kept.text == cut.text + word
    later = one(llm, "The future of AI is", max_tokens=40, stop=[word], min_tokens=len(cut.token_ids) + 1).outputs[0]
    assert len(later.token_ids) > len(cut.token_ids)


def test_stop_token_ids_and_ignore_eos(llm: LLM) -> None:
    ids = list(one(llm).outputs[0].token_ids)
    stopped = one(llm, stop_token_ids=[ids[1]]).outputs[0]
    assert list(stopped.token_ids) == ids[:2] and stopped.stop_reason == ids[1] and stopped.text == " Paris"
    on = one(llm, ignore_eos=True, max_tokens=30).outputs[0]
    assert len(on.token_ids) == 30 and on.finish_reason == "length"
    assert len(one(llm, min_tokens=20, max_tokens=25).outputs[0].token_ids) >= 20


def test_logits_options(llm: LLM) -> None:
    assert list(one(llm, logit_bias={5: 100}, max_tokens=2).outputs[0].token_ids) == [5, 5]
    assert set(one(llm, allowed_token_ids=[7, 8], max_tokens=4).outputs[0].token_ids) <= {7, 8}
    assert "Paris" not in one(llm, bad_words=["Paris"]).outputs[0].text
    plain = one(llm, ignore_eos=True, max_tokens=30).outputs[0].token_ids
    fresh = one(llm, ignore_eos=True, max_tokens=30, repetition_penalty=2.0, frequency_penalty=2.0).outputs[0].token_ids
    assert len(set(fresh)) > len(set(plain))


def test_logits_processors(llm: LLM) -> None:
    def only_nine(ids: list[int], logits: Any) -> Any:
        logits[:] = -math.inf
        logits[9] = 0.0
        return logits

    assert set(one(llm, logits_processors=[only_nine], max_tokens=3).outputs[0].token_ids) == {9}
    with pytest.raises(EngineGenerateError, match="ZeroDivisionError"):
        one(llm, logits_processors=[lambda ids, logits: 1 // 0])
    assert "Paris" in one(llm).outputs[0].text


def test_logprobs(llm: LLM) -> None:
    output = one(llm, logprobs=3, prompt_logprobs=2)
    done = output.outputs[0]
    assert done.logprobs is not None and output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
    for token, found in zip(done.token_ids, done.logprobs, strict=True):
        assert 3 <= len(found) <= 4 and found[token].rank == 1
        assert sorted(p.logprob for p in found.values())[-1] == found[token].logprob
        assert sum(math.exp(p.logprob) for p in found.values()) <= 1 + 1e-3
    assert done.cumulative_logprob == pytest.approx(
        sum(f[t].logprob for t, f in zip(done.token_ids, done.logprobs, strict=True))
    )
    ids = output.prompt_token_ids
    assert ids is not None and all(i in f for i, f in zip(ids[1:], output.prompt_logprobs[1:], strict=True) if f)
    hot = one(llm, logprobs=3, temperature=2.0, seed=1, max_tokens=1).outputs[0].logprobs
    assert hot is not None
    best = max(done.logprobs[0].values(), key=lambda p: p.logprob)
    assert max(p.logprob for p in hot[0].values()) == pytest.approx(best.logprob, abs=1e-3), "logprobs must be raw"


def test_prefix_cache_gives_the_same_answer(llm: LLM) -> None:
    prompt = "Tom and Anna went to the park. " * 12 + FRANCE
    llm.reset_prefix_cache()
    first, second = one(llm, prompt, logprobs=1), one(llm, prompt, logprobs=1)
    assert first.num_cached_tokens == 0 and (second.num_cached_tokens or 0) >= 64
    assert first.outputs[0].token_ids == second.outputs[0].token_ids
    salted = one(llm, {"prompt": prompt, "cache_salt": "other"})
    assert salted.num_cached_tokens == 0


def test_chat(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=40)
    ask = [{"role": "user", "content": "What is 123+456?"}]
    [answer] = llm.chat(ask, params, use_tqdm=False)
    assert "579" in answer.outputs[0].text
    both = llm.chat([ask, [{"role": "user", "content": "What is the capital of Japan?"}]], params, use_tqdm=False)
    assert "579" in both[0].outputs[0].text and "Tokyo" in both[1].outputs[0].text


def test_beam_search_orders_beams(llm: LLM) -> None:
    [found] = llm.beam_search([FRANCE], BeamSearchParams(beam_width=3, max_tokens=8))
    scores = [s.cum_logprob / len(s.tokens) for s in found.sequences]
    assert len(found.sequences) == 3 and scores == sorted(scores, reverse=True)
    assert "Paris" in (found.sequences[0].text or "")


@pytest.mark.parametrize(
    ("prompt", "params", "words"),
    [
        ("", {}, "no tokens"),
        ([1] * 2000, {}, "max_model_len"),
        ({"prompt_token_ids": [10**6]}, {}, "vocabulary"),
        (FRANCE, {"logprobs": 21}, "max_logprobs"),
        (FRANCE, {"logit_bias": {10**6: 1.0}}, "vocabulary"),
        (FRANCE, {"structured_outputs": {"regex": "(a"}}, "structured_outputs"),
        (FRANCE, {"flat_logprobs": True}, "flat_logprobs"),
        ({"prompt": "x", "multi_modal_data": {"image": 1}}, {}, "text only"),
    ],
)
def test_bad_requests_say_why_and_harm_nobody(llm: LLM, prompt: Any, params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        llm.generate([FRANCE, prompt], [SamplingParams(), SamplingParams(**params)], use_tqdm=False)
    assert not llm.llm_engine.has_unfinished_requests()
    assert one(llm).outputs[0].text.startswith(" Paris")


def test_wrong_shapes(llm: LLM) -> None:
    with pytest.raises(ValueError, match="one per prompt"):
        llm.generate([FRANCE], [SamplingParams()] * 2)
    with pytest.raises(TypeError, match="sampling_params"):
        llm.generate(FRANCE, "fast")  # type: ignore[arg-type]
    assert llm.generate([], use_tqdm=False) == []


def test_streaming_by_steps(llm: LLM) -> None:
    from vllm.sampling_params import RequestOutputKind

    engine = llm.llm_engine
    engine.add_request("a", FRANCE, SamplingParams(temperature=0, output_kind=RequestOutputKind.DELTA))
    pieces = []
    while engine.has_unfinished_requests():
        pieces += [o.outputs[0].text for o in engine.step()]
    assert "".join(pieces) == one(llm, max_tokens=16).outputs[0].text and len(pieces) > 1
    engine.add_request("b", FRANCE, SamplingParams(max_tokens=500, ignore_eos=True))
    engine.step()
    engine.abort_request("b")
    assert not engine.has_unfinished_requests()


def test_two_engines_at_once_and_close() -> None:
    with LLM(max_model_len=256) as a, LLM(max_model_len=256) as b:
        assert one(a).outputs[0].text == one(b).outputs[0].text
    with pytest.raises(EngineDeadError):
        one(a)
    a.close()


def _resident() -> int:
    from pathlib import Path

    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_close_gives_the_memory_back(tmp_path: Any) -> None:
    from tests.support.opt_folder import write_opt

    folder = write_opt(tmp_path / "opt", layers=4)

    def run() -> None:
        with LLM(model=str(folder), max_model_len=512, dtype="float32") as made:
            one(made, "a")

    run()
    gc.collect()
    before = _resident()
    for _ in range(3):
        run()
    gc.collect()
    assert _resident() - before < 120 << 20, "a closed model of 270 MB must not stay"
