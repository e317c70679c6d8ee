"""SamplingParams: defaults, ranges, types, copies and the wire."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm.errors import ValidationError
from vllm.sampling_params import (
    BeamSearchParams,
    RequestOutputKind,
    SamplingParams,
    SamplingType,
    StructuredOutputsParams,
)


def test_defaults_are_vllms():
    p = SamplingParams()
    assert (p.n, p.temperature, p.top_p, p.top_k, p.min_p, p.max_tokens) == (1, 1.0, 1.0, 0, 0.0, 16)
    assert p.stop == [] and p.stop_token_ids == [] and p.bad_words == []
    assert p.output_kind is RequestOutputKind.CUMULATIVE
    assert p.sampling_type is SamplingType.RANDOM
    assert repr(p).startswith("SamplingParams(n=1, presence_penalty=0.0,")
    assert "_eos_token_id" not in repr(p)


BAD = [
    ("n", 0), ("n", -1), ("n", 10**9), ("n", 1.5), ("n", True), ("n", "2"),
    ("temperature", math.nan), ("temperature", math.inf), ("temperature", -0.1), ("temperature", "hot"),
    ("temperature", "0.8"), ("temperature", True), ("temperature", 2.1), ("temperature", None),
    ("temperature", 10**400),
    ("top_p", 0), ("top_p", 1.01), ("top_p", math.nan), ("top_k", -2), ("top_k", 2.5), ("top_k", math.inf),
    ("min_p", -0.1), ("min_p", 1.1), ("presence_penalty", 2.1), ("frequency_penalty", -2.1),
    ("repetition_penalty", 0), ("repetition_penalty", math.inf), ("repetition_penalty", -1),
    ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 2**40), ("max_tokens", "16"), ("max_tokens", 16.0),
    ("min_tokens", -1), ("min_tokens", 17), ("min_tokens", 2**63), ("logprobs", -2), ("logprobs", True),
    ("prompt_logprobs", -2), ("seed", 1.5), ("seed", 2**64), ("seed", "1"), ("stop", 5), ("stop", [""]), ("stop", [1]),
    ("stop_token_ids", ["a"]), ("stop_token_ids", [-1]), ("stop_token_ids", 7), ("stop_token_ids", "12"),
    ("allowed_token_ids", []), ("logit_bias", {"a": 1}), ("logit_bias", {1: math.nan}), ("logit_bias", {-1: 1.0}),
    ("logit_bias", [1]), ("bad_words", [""]), ("truncate_prompt_tokens", 0), ("truncate_prompt_tokens", -2),
    ("ignore_eos", 1), ("detokenize", "no"), ("extra_args", [1]), ("logits_processors", [1]),
    ("output_kind", "delta"), ("thinking_token_budget", -2), ("logprob_token_ids", list(range(129))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{n}-{str(v)[:20]}" for n, v in BAD])
def test_bad_values_name_the_field(name, value):
    with pytest.raises(ValidationError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.field == name
    assert name in str(caught.value)
    assert len(str(caught.value)) < 300
    assert isinstance(caught.value, ValueError)


def test_message_names_value_and_range():
    with pytest.raises(ValueError, match=r"top_p must be a finite number in \(0, 1\], got 7\."):
        SamplingParams(top_p=7)


def test_greedy_resets_the_shape_and_wants_one_sequence():
    p = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.2)
    assert (p.top_p, p.top_k, p.min_p) == (1.0, 0, 0.0)
    assert p.sampling_type is SamplingType.GREEDY
    with pytest.raises(ValueError, match="n must be 1 when temperature is 0"):
        SamplingParams(temperature=0, n=2)


def test_small_temperature_is_raised():
    assert SamplingParams(temperature=0.001).temperature == 0.01
    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(seed=3).sampling_type is SamplingType.RANDOM_SEED
    assert SamplingParams(top_k=-1).top_k == 0


def test_stop_needs_text():
    with pytest.raises(ValueError, match="stop_token_ids"):
        SamplingParams(stop="x", detokenize=False)
    assert SamplingParams(stop=["abc", "de"]).output_text_buffer_length == 2


def test_logit_bias_takes_json_keys_and_is_clamped():
    assert SamplingParams(logit_bias={"5": 500, 6: -500.5}).logit_bias == {5: 100.0, 6: -100.0}


def test_check_limits():
    p = SamplingParams(logprobs=21)
    with pytest.raises(ValueError, match=r"logprobs must be at most max_logprobs \(20\), got 21"):
        p.check_limits(100, 100)
    p.check_limits(100, 100, max_logprobs=-1)
    with pytest.raises(ValueError, match="min_tokens"):
        SamplingParams(max_tokens=None, min_tokens=101).check_limits(100, 100)
    with pytest.raises(ValueError, match="allowed_token_ids"):
        SamplingParams(allowed_token_ids=[100]).check_limits(100, 100)
    with pytest.raises(ValueError, match="logprobs"):
        SamplingParams(logprobs=-1).check_limits(100, 100)


@pytest.mark.parametrize(("name", "value"), [("temperature", math.nan), ("max_tokens", -1), ("stop", [""]), ("n", 0)])
def test_fields_set_later_are_checked_at_intake(name, value):
    p = SamplingParams()
    setattr(p, name, value)
    with pytest.raises(ValidationError, match=name):
        p.check_limits(100, 100)
    q = SamplingParams()
    q.prompt_logprobs = 1
    q.check_limits(100, 100)
    assert q.skip_reading_prefix_cache is True


def test_end_ids_of_the_model():
    p = SamplingParams(stop_token_ids=[9])
    p.update_from_generation_config({"eos_token_id": [2, 7]}, 2)
    assert p.eos_token_id == 2
    assert p.stop_token_ids == [7, 9]
    assert p.all_stop_token_ids == {2, 7, 9}
    q = SamplingParams(ignore_eos=True)
    q.update_from_generation_config({"eos_token_id": 7}, 2)
    assert q.stop_token_ids == [] and q.eos_token_id is None and q.all_stop_token_ids == {2, 7}


def test_defaults_from_generation_config():
    p = SamplingParams.from_generation_config(
        {"temperature": 0.6, "top_k": 20, "max_new_tokens": 50, "bos_token_id": 1}
    )
    assert (p.temperature, p.top_k, p.max_tokens) == (0.6, 20, 50)


def test_from_optional():
    p = SamplingParams.from_optional(temperature=None, max_tokens=None, top_p=0.5)
    assert p.temperature == 1.0 and p.max_tokens is None and p.top_p == 0.5
    with pytest.raises(TypeError, match="Did you mean 'temperature'"):
        SamplingParams.from_optional(temprature=1)


def test_clone_shares_nothing():
    p = SamplingParams(stop=["a"], logit_bias={1: 2.0})
    q = p.clone()
    assert q == p
    q.stop.append("b")
    q.logit_bias[3] = 1.0
    q.all_stop_token_ids.add(4)
    assert p.stop == ["a"] and p.logit_bias == {1: 2.0} and p.all_stop_token_ids == set()


def test_prompt_logprobs_skip_the_cache():
    assert SamplingParams(prompt_logprobs=1).skip_reading_prefix_cache is True
    assert SamplingParams().skip_reading_prefix_cache is False


def test_wire_round_trip():
    p = SamplingParams(stop=["a"], seed=7, structured_outputs={"regex": "a+"}, logit_bias={3: 1.5}, max_tokens=None)
    p.update_from_generation_config({"eos_token_id": [2, 7]}, 2)
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(p), type=SamplingParams)
    assert back == p and back.eos_token_id == 2 and back.all_stop_token_ids == {2, 7}


def test_structured_outputs():
    assert StructuredOutputsParams(choice=["a"]).kind == "choice"
    for bad in ({}, {"json": {}, "regex": "a"}, {"regex": "a\0"}, {"choice": []}, {"choice": [1]}):
        with pytest.raises(ValueError, match="structured_outputs"):
            StructuredOutputsParams(**bad)
    deep = {}
    for _ in range(70):
        deep = {"properties": deep}
    with pytest.raises(ValueError, match="64 levels"):
        StructuredOutputsParams(json=deep)


def test_beam_search():
    assert BeamSearchParams(4, 10).length_penalty == 1.0
    with pytest.raises(ValueError, match="beam_width"):
        BeamSearchParams(0, 10)


@given(
    st.sampled_from(["n", "temperature", "top_p", "top_k", "min_tokens", "max_tokens", "seed", "repetition_penalty"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_subnormal=False),
        st.text(),
        st.binary(),
        st.lists(st.integers()),
    ),
)
def test_anything_gives_plain_numbers_or_a_named_error(name, value):
    try:
        p = SamplingParams(**{name: value})
    except ValidationError as error:
        assert error.field in (name, "min_tokens")  # min_tokens is measured against max_tokens
        return
    kept = getattr(p, name)
    assert kept is None or (type(kept) in (int, float) and math.isfinite(kept))


@pytest.mark.parametrize(
    "bad",
    [
        {"max_pattern_size": 2, "min_pattern_size": 3, "min_count": 2},
        {"max_pattern_size": 2, "min_count": 1},
        {"max_pattern_size": -1},
        {"max_patern_size": 2},
    ],
)
def test_repetition_detection_is_checked(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="repetition_detection"):
        SamplingParams(repetition_detection=bad)  # type: ignore[arg-type]
