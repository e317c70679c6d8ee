"""Prompts in every accepted form; outputs' repr and merging; pooling parameters."""

import numpy as np
import pytest

from vllm.errors import PromptError
from vllm.inputs import TextPrompt, TokensPrompt, normalize_prompts
from vllm.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from vllm.pooling_params import PoolingParams


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ("hi", [{"prompt": "hi"}]),
        ("", [{"prompt": ""}]),
        ([], []),
        (["a", "b"], [{"prompt": "a"}, {"prompt": "b"}]),
        ([1, 2], [{"prompt_token_ids": [1, 2]}]),
        ((1, 2), [{"prompt_token_ids": [1, 2]}]),
        ([[1], [2, 3]], [{"prompt_token_ids": [1]}, {"prompt_token_ids": [2, 3]}]),
        (np.array([1, 2]), [{"prompt_token_ids": [1, 2]}]),
        ([np.int64(1), np.int32(2)], [{"prompt_token_ids": [1, 2]}]),
        (np.array([[1, 2], [3, 4]]), [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3, 4]}]),
        (TextPrompt(prompt="x"), [{"prompt": "x"}]),
        (
            ["a", [1], TokensPrompt(prompt_token_ids=[5], prompt="t"), {"prompt": "z", "cache_salt": "s"}],
            [
                {"prompt": "a"},
                {"prompt_token_ids": [1]},
                {"prompt_token_ids": [5], "prompt": "t"},
                {"prompt": "z", "cache_salt": "s"},
            ],
        ),
        ({"prompt": "a", "multi_modal_data": None}, [{"prompt": "a"}]),
    ],
)
def test_normal_forms(given, want):
    got = normalize_prompts(given)
    assert got == want
    assert all(type(i) is int for p in got for i in p.get("prompt_token_ids", ()))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "prompts must be"),
        (None, "prompts must be"),
        (b"bytes", "prompts must be"),
        (["a", 5.5], r"prompts\[1\]"),
        (["a", []], r"prompts\[1\] must be non-empty"),
        ([[1, -2]], r"prompts\[0\].*-2"),
        ([1, "a"], "integer"),
        ([[1, True]], "True"),
        ([[1, 2**31]], "2147483648"),
        ({"promt": "a"}, "Did you mean 'prompt'"),
        ({}, "must hold one of"),
        ({"prompt": 5}, r"prompt\['prompt'\] must be a string"),
        ({"prompt_token_ids": "12"}, "list of token ids"),
        ([{"prompt": "a", "cache_salt": ""}], "cache_salt"),
        ({"encoder_prompt": "a", "decoder_prompt": "b"}, "encoder-decoder"),
    ],
)
def test_bad_prompts_name_their_place(given, says):
    with pytest.raises(PromptError, match=says):
        normalize_prompts(given)


def test_huge_prompt_is_not_quoted_whole():
    with pytest.raises(PromptError) as caught:
        normalize_prompts([["x" * 10_000_000]])
    assert len(str(caught.value)) < 400


def test_output_repr_and_merge():
    one = CompletionOutput(0, "He", [1], -0.5, [{1: Logprob(-0.5, 1, "He")}])
    out = RequestOutput("r", "p", [9], None, [one], False)
    assert repr(one).startswith(
        "CompletionOutput(index=0, text='He', token_ids=[1], cumulative_logprob=-0.5, logprobs="
    )
    assert repr(out).startswith("RequestOutput(request_id='r', prompt='p', prompt_token_ids=[9], ")
    assert not one.finished()
    late = CompletionOutput(0, "y", [2], -0.7, [{2: Logprob(-0.2, 1, "y")}], finish_reason="stop")
    other = CompletionOutput(1, "z", [3])
    out.add(RequestOutput("r", "p", [9], None, [late, other], True), aggregate=True)
    assert out.finished and out.outputs[0].text == "Hey" and out.outputs[0].token_ids == [1, 2]
    assert len(out.outputs[0].logprobs) == 2 and out.outputs[0].finish_reason == "stop"
    assert out.outputs[1].text == "z"
    out.add(RequestOutput("r", "p", [9], None, [CompletionOutput(0, "new", [7])], True), aggregate=False)
    assert out.outputs[0].text == "new"


def test_metrics_speak_wall_clock():
    m = RequestMetrics(arrival_time=1000.0, queued_ts=5.0, scheduled_ts=5.5, first_token_ts=6.0)
    assert m.time_in_queue == 0.5 and m.first_token_time == 1001.0 and m.finished_time is None


def test_pooling_params():
    assert PoolingParams(dimensions=64).clone() == PoolingParams(dimensions=64)
    for bad in ({"dimensions": 0}, {"task": "sing"}, {"truncate_prompt_tokens": 0}, {"use_activation": "yes"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            PoolingParams(**bad)
