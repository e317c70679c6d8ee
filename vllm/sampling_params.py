"""Every per-request knob of generation, validated once, here.

SamplingParams is plain data: it crosses to the engine by wire, so it holds no live object except `logits_processors`,
which only in-process engines accept. Knows nothing of tokenizers or models: what depends on them (vocabulary size,
context length) is checked by `check_limits`, called at intake. Invariant: after construction every number is a finite
plain int or float inside its range. Callers: users, the HTTP routes, engine/intake, sampling stages.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from vllm.errors import MAX_LIST, ValidationError, check_bool, check_float, check_int, check_strings, nearest
from vllm.structured_params import StructuredOutputsParams

SAMPLING_EPS = 1e-5
MIN_TEMPERATURE = 1e-2  # why: below it logits/T leaves float32's useful range; smaller values are raised to it
MAX_N = 16384
MAX_COUNT = 2**31 - 1
MAX_LOGPROB_TOKEN_IDS = 128


class SamplingType(enum.IntEnum):
    """How the next token is chosen."""

    GREEDY = 0
    RANDOM = 1
    RANDOM_SEED = 2


class RequestOutputKind(enum.Enum):
    """What each RequestOutput of a stream holds: everything so far, only what is new, or one at the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass(slots=True)
class RepetitionDetectionParams:
    """Stop when the tail of the output is one pattern of min..max tokens, `min_count` times in a row; max 0: never."""

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    def __post_init__(self) -> None:
        for name in ("max_pattern_size", "min_pattern_size", "min_count"):
            setattr(self, name, check_int(f"repetition_detection.{name}", getattr(self, name), 0, MAX_COUNT))
        if self.min_pattern_size > self.max_pattern_size:
            allowed = f"at most max_pattern_size ({self.max_pattern_size})"
            raise ValidationError.of("repetition_detection.min_pattern_size", self.min_pattern_size, allowed)
        if self.max_pattern_size:
            self.min_pattern_size = max(1, self.min_pattern_size)
            self.min_count = check_int("repetition_detection.min_count", self.min_count, 2, MAX_COUNT)


@dataclass(slots=True)
class SamplingParams:
    """How to generate. Names and defaults are vLLM's.

    Raises ValidationError (a ValueError) naming field, value and allowed range.
    """

    n: int = 1  # sequences per prompt
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0  # 0 means greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 or -1 means all
    min_p: float = 0.0
    seed: int | None = None  # None or -1: drawn at intake
    stop: str | list[str] | None = None  # always a list after construction
    stop_token_ids: list[int] | None = None  # always a list after construction
    ignore_eos: bool = False
    max_tokens: int | None = 16  # None: up to the context length
    min_tokens: int = 0
    logprobs: int | None = None  # -1: the whole vocabulary
    prompt_logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    prompt_logprob_token_ids: list[int] | None = None
    prompt_logprob_start: int | None = None
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    truncate_prompt_tokens: int | None = None  # keep this many last tokens; -1: as many as fit
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    stream_interval: int | None = None
    skip_clone: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    logits_processors: list[Any] | None = None  # callables (token_ids, logits) -> logits; in-process only
    extra_args: dict[str, Any] | None = None
    skip_reading_prefix_cache: bool | None = None  # None: read it unless prompt_logprobs are asked
    thinking_token_budget: int | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    watermarking: bool | None = None
    routed_experts_prompt_start: int | None = None
    trace_decode_token_ids: list[int] | None = None
    # why: vLLM's is a msgspec.Struct, and tools copy one by these names
    __struct_fields__: ClassVar[tuple[str, ...]] = ()
    _eos_token_id: int | None = field(default=None, init=False, repr=False)
    _all_stop_token_ids: set[int] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_lengths()
        self._check_lists()
        self._check_rest()
        self._all_stop_token_ids |= set(self.stop_token_ids or ())

    def _check_numbers(self) -> None:
        """Everything that shapes the distribution."""
        self.n = check_int("n", self.n, 1, MAX_N)
        self.presence_penalty = check_float("presence_penalty", self.presence_penalty, -2, 2)
        self.frequency_penalty = check_float("frequency_penalty", self.frequency_penalty, -2, 2)
        self.repetition_penalty = check_float("repetition_penalty", self.repetition_penalty, 0, math.inf, open_low=True)
        self.temperature = check_float("temperature", self.temperature, 0, 2)
        self.top_p = check_float("top_p", self.top_p, 0, 1, open_low=True)
        self.top_k = max(0, check_int("top_k", self.top_k, -1, MAX_COUNT, also=" (0 or -1: no limit)"))
        self.min_p = check_float("min_p", self.min_p, 0, 1)
        if self.seed is not None:
            self.seed = check_int("seed", self.seed, -(2**63), 2**64 - 1)
            self.seed = None if self.seed == -1 else self.seed
        if self.temperature < SAMPLING_EPS:
            if self.n > 1:
                raise ValidationError.of("n", self.n, "1 when temperature is 0", "All n would be the same text.")
            self.temperature, self.top_p, self.top_k, self.min_p = 0.0, 1.0, 0, 0.0
        elif self.temperature < MIN_TEMPERATURE:
            self.temperature = MIN_TEMPERATURE

    def _check_lengths(self) -> None:
        """Counts: tokens, logprobs, budgets."""
        if self.max_tokens is not None:
            self.max_tokens = check_int("max_tokens", self.max_tokens, 1, MAX_COUNT, also=" or None")
        top = MAX_COUNT if self.max_tokens is None else self.max_tokens
        also = "" if self.max_tokens is None else " (max_tokens)"
        self.min_tokens = check_int("min_tokens", self.min_tokens, 0, top, also=also)
        for name, low in _OPTIONAL_COUNTS.items():
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, check_int(name, value, low, MAX_COUNT, also=" or None"))
        if self.thinking_token_budget == -1:
            self.thinking_token_budget = None
        if self.truncate_prompt_tokens == 0:
            raise ValidationError.of("truncate_prompt_tokens", 0, "-1 or at least 1")

    def _check_lists(self) -> None:
        """Strings and token ids."""
        self.stop = check_strings("stop", self.stop or [])
        self.bad_words = check_strings("bad_words", self.bad_words or [])
        self.stop_token_ids = _token_ids("stop_token_ids", self.stop_token_ids or [])
        for name in ("allowed_token_ids", "logprob_token_ids", "prompt_logprob_token_ids", "trace_decode_token_ids"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, _token_ids(name, value))
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise ValidationError.of("allowed_token_ids", [], "None or a non-empty list")
        for name in ("logprob_token_ids", "prompt_logprob_token_ids"):
            value = getattr(self, name)
            if value is not None and len(value) > MAX_LOGPROB_TOKEN_IDS:
                allowed = f"a list of at most {MAX_LOGPROB_TOKEN_IDS} ids"
                raise ValidationError.of(name, f"{len(value)} ids", allowed)
        if self.logit_bias is not None:
            self.logit_bias = _logit_bias(self.logit_bias)

    def _check_rest(self) -> None:
        """Flags and what must hold between fields."""
        for name in _FLAGS:
            setattr(self, name, check_bool(name, getattr(self, name)))
        if self.stop and not self.detokenize:
            raise ValidationError.of("stop", self.stop, "empty when detokenize=False", "Use stop_token_ids instead.")
        if isinstance(self.output_kind, int):
            self.output_kind = RequestOutputKind(self.output_kind)
        if not isinstance(self.output_kind, RequestOutputKind):
            raise ValidationError.of("output_kind", self.output_kind, "a RequestOutputKind")
        if isinstance(self.structured_outputs, Mapping):
            self.structured_outputs = StructuredOutputsParams(**self.structured_outputs)
        if isinstance(self.repetition_detection, Mapping):
            unknown = set(self.repetition_detection) - {f.name for f in fields(RepetitionDetectionParams)}
            if unknown:
                allowed = "made of max_pattern_size, min_pattern_size and min_count"
                raise ValidationError.of("repetition_detection", sorted(unknown)[0], allowed)
            self.repetition_detection = RepetitionDetectionParams(**self.repetition_detection)
        if self.extra_args is not None and not isinstance(self.extra_args, dict):
            raise ValidationError.of("extra_args", self.extra_args, "a dict or None")
        if self.logits_processors is not None:
            for one in self.logits_processors:
                if not callable(one):
                    raise ValidationError.of("logits_processors", one, "a list of callables")
        # why: a cached prefix has no logits to report
        self.skip_reading_prefix_cache = bool(self.skip_reading_prefix_cache) or self.prompt_logprobs is not None

    def check_limits(self, vocab_size: int, max_model_len: int, max_logprobs: int = 20) -> None:
        """What only the model can say: ids inside the vocabulary, counts inside the context. Raises ValidationError.

        Everything else is checked again too, since fields may have been set after construction.
        """
        self.__post_init__()
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            wanted = vocab_size if value == -1 else value
            if wanted is not None and max_logprobs != -1 and wanted > max_logprobs:
                remedy = "Raise max_logprobs when the engine is made."
                raise ValidationError.of(name, value, f"at most max_logprobs ({max_logprobs})", remedy)
        if self.min_tokens > max_model_len:
            raise ValidationError.of("min_tokens", self.min_tokens, f"at most max_model_len ({max_model_len})")
        for name in ("stop_token_ids", "allowed_token_ids", "logit_bias", "logprob_token_ids"):
            for token_id in getattr(self, name) or ():
                if token_id >= vocab_size:
                    raise ValidationError.of(name, token_id, f"token ids below the vocabulary size ({vocab_size})")

    def update_from_generation_config(
        self, generation_config: Mapping[str, Any], eos_token_id: int | None = None
    ) -> None:
        """Learn the model's end ids: the tokenizer's own and all those of generation_config.json.

        The ids stop the text unless `ignore_eos`; before `min_tokens` they are forbidden either way.
        """
        if eos_token_id is not None:
            self._all_stop_token_ids.add(eos_token_id)
            self._eos_token_id = None if self.ignore_eos else eos_token_id
        listed = generation_config.get("eos_token_id")
        if listed is None:
            return
        others = {int(i) for i in (listed if isinstance(listed, (list, tuple)) else [listed])} - {eos_token_id}
        self._all_stop_token_ids |= others
        if not self.ignore_eos:
            self.stop_token_ids = sorted(others | set(self.stop_token_ids or ()))

    def clone(self) -> SamplingParams:
        """A copy that shares no list with this one; live logits processors are shared."""
        twin = object.__new__(SamplingParams)
        for f in fields(self):
            value = getattr(self, f.name)
            setattr(twin, f.name, value.copy() if isinstance(value, (list, dict, set)) else value)
        return twin

    @property
    def sampling_type(self) -> SamplingType:
        if self.temperature < SAMPLING_EPS:
            return SamplingType.GREEDY
        return SamplingType.RANDOM if self.seed is None else SamplingType.RANDOM_SEED

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's end id, or None while unknown or when `ignore_eos`."""
        return self._eos_token_id

    @property
    def all_stop_token_ids(self) -> set[int]:
        """Every id that ends the text, known so far: forbidden until `min_tokens`."""
        return self._all_stop_token_ids

    @property
    def output_text_buffer_length(self) -> int:
        """Characters to hold back from a stream, so that no part of a stop string is ever shown."""
        if not self.stop or self.include_stop_str_in_output:
            return 0
        return max(len(s) for s in self.stop) - 1

    @classmethod
    def from_optional(cls, **given: Any) -> SamplingParams:
        """Like the constructor, but None means the default. Unknown names are a TypeError naming the nearest."""
        known = {f.name for f in fields(cls) if f.init}
        for name in given:
            if name not in known:
                raise TypeError(f"SamplingParams has no field {name!r}.{nearest(name, known)}")
        keep_none = {"max_tokens"}  # why: None is a meaning of its own there: up to the context length
        return cls(**{k: v for k, v in given.items() if v is not None or k in keep_none})

    @classmethod
    def from_generation_config(cls, generation_config: Mapping[str, Any]) -> SamplingParams:
        """Defaults that a model's generation_config.json asks for; the rest stays ours."""
        given = {ours: generation_config.get(theirs) for theirs, ours in _FROM_GENERATION_CONFIG.items()}
        return cls(**{name: value for name, value in given.items() if value is not None})


_FLAGS = (
    "ignore_eos",
    "flat_logprobs",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
    "skip_clone",
)
_OPTIONAL_COUNTS = {  # field -> lowest value
    "logprobs": -1,
    "prompt_logprobs": -1,
    "prompt_logprob_start": 0,
    "truncate_prompt_tokens": -1,
    "stream_interval": 1,
    "thinking_token_budget": -1,
    "routed_experts_prompt_start": 0,
}
_FROM_GENERATION_CONFIG = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


@dataclass(slots=True)
class BeamSearchParams:
    """How to search with beams."""

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        self.beam_width = check_int("beam_width", self.beam_width, 1, MAX_N)
        self.max_tokens = check_int("max_tokens", self.max_tokens, 1, MAX_COUNT)
        self.temperature = check_float("temperature", self.temperature, 0, 2)
        self.length_penalty = check_float("length_penalty", self.length_penalty, -math.inf, math.inf)


def _token_ids(name: str, value: Any) -> list[int]:
    """A list of plain non-negative ints."""
    if isinstance(value, (str, bytes, Mapping)):
        raise ValidationError.of(name, value, "a list of token ids")
    try:
        items = list(value)
    except TypeError:
        raise ValidationError.of(name, value, "a list of token ids") from None
    if len(items) > 4 * MAX_LIST:
        raise ValidationError.of(name, f"{len(items)} ids", f"a list of at most {4 * MAX_LIST} token ids")
    return [check_int(name, item, 0, MAX_COUNT) for item in items]


SamplingParams.__struct_fields__ = tuple(f.name for f in fields(SamplingParams) if f.init)


def _logit_bias(value: Any) -> dict[int, float]:
    """token id -> bias within [-100, 100]; ids may be strings of digits, as JSON keys are."""
    if not isinstance(value, Mapping):
        raise ValidationError.of("logit_bias", value, "a dict of token id to bias")
    out: dict[int, float] = {}
    for key, bias in value.items():
        if isinstance(key, str):
            if not key.isascii() or not key.isdigit() or len(key) > 10:
                raise ValidationError.of("logit_bias", key, "keyed by token ids")
            key = int(key)
        number = check_float("logit_bias", bias, -math.inf, math.inf)
        out[check_int("logit_bias", key, 0, MAX_COUNT)] = min(100.0, max(-100.0, number))
    return out
