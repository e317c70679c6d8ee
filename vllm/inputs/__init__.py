"""What a user may pass as a prompt, and its one normal form.

    "text"   [1, 2, 3]   TextPrompt   TokensPrompt   EmbedsPrompt   or a list of any of these, mixed
        └──────────────── normalize_prompts ────────────────┘
                     list of dicts, each holding exactly one of prompt | prompt_token_ids | prompt_embeds

Knows nothing of tokenizers, models or limits (engine/intake does). Invariant: a normalised prompt has known keys only
and plain int ids >= 0; errors name the index of the offending prompt. Callers: entrypoints, engine/intake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypeAlias, TypedDict

from vllm.errors import PromptError, check_int, nearest, quoted


class _Options(TypedDict):
    """Keys that any prompt may carry beside its content."""

    multi_modal_data: NotRequired[dict[str, Any] | None]
    multi_modal_uuids: NotRequired[dict[str, Any] | None]
    mm_processor_kwargs: NotRequired[dict[str, Any] | None]
    media_io_kwargs: NotRequired[dict[str, Any] | None]
    cache_salt: NotRequired[str | None]  # prompts of different salts never share a cached prefix


class TextPrompt(_Options):
    """A prompt as text; special tokens are added when it is tokenised."""

    prompt: str


class TokensPrompt(_Options):
    """A prompt as token ids, taken as they are; `prompt` may keep the text they came from."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str | None]
    token_type_ids: NotRequired[list[int]]


class EmbedsPrompt(_Options):
    """A prompt as input embeddings, an array of shape [T, E]; ids may accompany it."""

    prompt_embeds: Any
    prompt: NotRequired[str | None]
    prompt_token_ids: NotRequired[list[int]]
    prompt_is_token_ids: NotRequired[list[bool]]


class ExplicitEncoderDecoderPrompt(TypedDict):
    """Separate prompts for encoder and decoder."""

    encoder_prompt: Any
    decoder_prompt: Any


class DataPrompt(TypedDict):
    """Raw data for an IO-processor plug-in."""

    data: Any
    data_format: str


@dataclass(frozen=True, slots=True)
class LoRARequest:
    """Which adapter a request wants: a name of your own, an id >= 1 that stands for it, and its folder."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    base_model_name: str | None = None
    load_inplace: bool = False
    is_3d_lora_weight: bool = False

    def __post_init__(self) -> None:
        check_int("lora_int_id", self.lora_int_id, 1, 2**31 - 1)

    @property
    def adapter_id(self) -> int:
        return self.lora_int_id

    @property
    def name(self) -> str:
        return self.lora_name

    @property
    def path(self) -> str:
        return self.lora_path


TypedPrompt: TypeAlias = TextPrompt | TokensPrompt | EmbedsPrompt
SingletonPrompt: TypeAlias = str | list[int] | TypedPrompt
PromptType: TypeAlias = SingletonPrompt | ExplicitEncoderDecoderPrompt

_OPTIONS = frozenset(_Options.__annotations__)
_CONTENT = ("prompt", "prompt_token_ids", "prompt_embeds")
_KNOWN = _OPTIONS | frozenset(_CONTENT) | {"token_type_ids", "prompt_is_token_ids"}
_EXPECTED = "a string, a list of token ids, or a dict with prompt, prompt_token_ids or prompt_embeds"


def normalize_prompts(prompts: PromptType | Sequence[PromptType]) -> list[TypedPrompt]:
    """One prompt or many, in any accepted form, as a list of typed prompts in the same order.

    An empty list gives an empty list. Raises PromptError naming the index.
    """
    prompts = _plain(prompts)
    if isinstance(prompts, (str, Mapping)):
        return [normalize_prompt(prompts)]
    if not isinstance(prompts, Sequence) or isinstance(prompts, (bytes, bytearray)):
        raise PromptError.of("prompts", prompts, f"{_EXPECTED}, or a list of those")
    if len(prompts) > 0 and _is_id(prompts[0]):
        return [normalize_prompt(prompts)]
    return [normalize_prompt(one, index) for index, one in enumerate(prompts)]


def normalize_prompt(prompt: Any, index: int | None = None) -> TypedPrompt:
    """One prompt as a typed prompt; `index` is its place in the user's list, for messages."""
    where = "prompt" if index is None else f"prompts[{index}]"
    prompt = _plain(prompt)
    if isinstance(prompt, str):
        return TextPrompt(prompt=prompt)
    if isinstance(prompt, Mapping):
        return _from_dict(where, prompt)
    if isinstance(prompt, Sequence) and not isinstance(prompt, (bytes, bytearray)):
        return TokensPrompt(prompt_token_ids=_ids(where, prompt))
    raise PromptError.of(where, prompt, _EXPECTED)


def _from_dict(where: str, given: Mapping[str, Any]) -> TypedPrompt:
    """A user's dict, checked; keys whose value is None are dropped."""
    if "encoder_prompt" in given or "decoder_prompt" in given:
        raise PromptError(f"{where}: encoder-decoder prompts are not supported.", field=where)
    for key in given:
        if key not in _KNOWN:
            raise PromptError(f"{where} has the unknown key {quoted(key)}.{nearest(str(key), _KNOWN)}", field=where)
    out: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if "prompt_embeds" not in out and "prompt_token_ids" not in out and "prompt" not in out:
        raise PromptError(f"{where} must hold one of {', '.join(_CONTENT)}.", field=where, value=given)
    if "prompt" in out and not isinstance(out["prompt"], str):
        raise PromptError.of(f"{where}['prompt']", out["prompt"], "a string")
    if "prompt_token_ids" in out:
        out["prompt_token_ids"] = _ids(f"{where}['prompt_token_ids']", out["prompt_token_ids"])
    if "cache_salt" in out and (not isinstance(out["cache_salt"], str) or not out["cache_salt"]):
        raise PromptError.of(f"{where}['cache_salt']", out["cache_salt"], "a non-empty string")
    if "multi_modal_data" in out and not out["multi_modal_data"]:
        del out["multi_modal_data"]
    return out  # type: ignore[return-value]


def _ids(where: str, value: Any) -> list[int]:
    """A non-empty list of plain ints >= 0."""
    value = _plain(value)
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
        raise PromptError.of(where, value, "a list of token ids")
    ids = list(value)
    if not ids:
        raise PromptError.of(where, ids, "non-empty")
    if set(map(type, ids)) != {int}:  # why: one pass in C for the usual case
        try:
            ids = [check_int(where, i, 0, 2**31 - 1) for i in ids]
        except ValueError as error:
            raise PromptError(str(error), field=where, value=value) from None
    if min(ids) < 0 or max(ids) >= 2**31:
        bad = next(i for i in ids if not 0 <= i < 2**31)
        raise PromptError.of(where, bad, "made of token ids >= 0")
    return ids


def _plain(value: Any) -> Any:
    """Arrays and tensors of ids as lists, without importing their libraries."""
    if isinstance(value, (str, list, Mapping)) or not hasattr(value, "tolist"):
        return value
    return value.tolist()


def _is_id(value: Any) -> bool:
    return not isinstance(value, (str, Mapping)) and hasattr(value, "__index__") and not hasattr(value, "__len__")
