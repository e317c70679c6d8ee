"""A request's fields as SamplingParams. Does not know: routes. Called by: routes/completions, routes/chat."""

from collections.abc import Mapping
from typing import Any

from vllm.entrypoints.openai.schemas import Generation
from vllm.entrypoints.openai.structured import constraint
from vllm.sampling_params import RequestOutputKind, SamplingParams

_SAME = (
    "n",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "top_k",
    "min_p",
    "repetition_penalty",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "allowed_token_ids",
    "bad_words",
    "repetition_detection",
)


def sampling_params(
    body: Generation,
    defaults: Mapping[str, Any],
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    """What the request asks, over what the model wants by default. Raises ValidationError naming the field."""
    said = {name: value for name in _SAME if (value := getattr(body, name)) is not None}
    given = {**defaults, **said}
    if max_tokens is not None or "max_tokens" not in given:
        given["max_tokens"] = max_tokens
    given["logprobs"], given["prompt_logprobs"] = logprobs, prompt_logprobs
    given["output_kind"] = RequestOutputKind.DELTA if body.stream else RequestOutputKind.FINAL_ONLY
    given["structured_outputs"] = constraint(body)
    given["extra_args"] = body.vllm_xargs
    return SamplingParams.from_optional(**given)
