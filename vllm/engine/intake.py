"""Intake: a user's prompt and SamplingParams become an immutable Request, or a ValueError that names what is wrong.

For: the one place where text meets the tokenizer, the context limit and the model's end ids. Does not know: scheduling,
devices, HTTP. Invariant: a Request that leaves here fits the context, holds only known token ids, carries one seed per
sequence. Called by: entrypoints (offline and server), before the engine's `add`.
"""

import hashlib
import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vllm.errors import PromptError, RefusedError, ValidationError
from vllm.inputs import TypedPrompt
from vllm.protocol.request import Request, TokenSpan
from vllm.sampling_params import SamplingParams
from vllm.util.log import get_logger, once

_log = get_logger(__name__)
_MASK64 = (1 << 64) - 1


class Encoder(Protocol):
    """The part of a tokenizer that intake needs."""

    eos_token_id: int | None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Text as token ids."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model allows."""

    vocab_size: int
    max_model_len: int
    max_logprobs: int = 20


@dataclass(slots=True)
class Taken:
    """A request with what the front keeps of its prompt."""

    request: Request
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams


def sequence_seed(request_seed: int, index: int) -> int:
    """The 64-bit noise seed of sibling `index` of a request: a hash, so that seeds 1, 2, 3 share nothing."""
    text = f"{request_seed & _MASK64}:{index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass(slots=True)
class Intake:
    """Makes requests for one model. `tokenizer` None means prompts must be token ids."""

    tokenizer: Encoder | None
    limits: Limits
    generation_config: Mapping[str, Any]
    seed: int = 0
    only: tuple[str, str] = ("", "")
    """A feature that every request must carry, and what to say to one without it."""
    reads_extra: bool = False
    """A logits processor of the user's own may read `extra_args`."""
    _drawn: "itertools.count[int]" = field(default_factory=itertools.count, init=False)
    # why: a server takes long prompts in threads, and two of them must not draw the same seed

    def take(
        self,
        request_id: str,
        prompt: TypedPrompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        tenant: str = "",
        add_special_tokens: bool = True,
        max_logprobs: int | None = None,
        features: Mapping[str, object] | None = None,
    ) -> Taken:
        """One prompt with its parameters as a Request. `params` is not changed. Raises ValueError (errors.py).

        `max_logprobs` replaces the model's limit for callers inside the engine (beam search).
        """
        params = params.clone()
        eos = self.tokenizer.eos_token_id if self.tokenizer is not None else None
        params.update_from_generation_config(self.generation_config, eos)
        most = self.limits.max_logprobs if max_logprobs is None else max_logprobs
        params.check_limits(self.limits.vocab_size, self.limits.max_model_len, most)
        self._refuse(prompt, params, features or {})
        text, ids = self._tokens(prompt, params, add_special_tokens)
        all_features = dict(features or {})
        if params.bad_words:
            all_features["bad_words_ids"] = self._bad_words(params.bad_words)
        stop_ids = set(params.stop_token_ids or ())
        if params.eos_token_id is not None:
            stop_ids.add(params.eos_token_id)
        request = Request(
            request_id=request_id,
            spans=(TokenSpan(tuple(ids)),),
            sampling=params,
            seeds=self._seeds(params),
            max_len=self._max_len(len(ids), params),
            stop_ids=frozenset(stop_ids),
            arrival=time.monotonic(),
            priority=priority,
            tenant=tenant,
            cache_salt=prompt.get("cache_salt") or "",
            features=all_features,
        )
        return Taken(request, text, ids, params)

    def _refuse(self, prompt: TypedPrompt, params: SamplingParams, features: Mapping[str, object]) -> None:
        """Options that would change the answer and are not built yet: said, not ignored."""
        wanted, sentence = self.only
        if wanted and wanted not in features:
            raise RefusedError(sentence)
        if prompt.get("multi_modal_data"):
            raise RefusedError("multi_modal_data: this model takes text only.", field="multi_modal_data")
        if "prompt_embeds" in prompt:
            raise RefusedError("prompt_embeds is not supported yet; give text or token ids.", field="prompt_embeds")
        for name in _UNBUILT:
            if getattr(params, name) is not None:
                raise RefusedError(f"{name} is not supported yet.", field=name, value=getattr(params, name))
        if params.structured_outputs is not None and "structured_output" not in features:
            raise RefusedError("structured_outputs needs a tokenizer.", field="structured_outputs")
        if params.extra_args and not self.reads_extra:
            # why: once and without names, for on a server clients choose them
            once(
                _log,
                logging.WARNING,
                "extra_args change no answer here; only logits_processors of the engine read them.",
            )
        for name in ("watermarking", "flat_logprobs"):
            if getattr(params, name):
                raise RefusedError(f"{name} is not supported yet.", field=name, value=True)
        if params.detokenize and self.tokenizer is None and params.stop:
            raise RefusedError("stop strings need a tokenizer; use stop_token_ids.", field="stop", value=params.stop)

    def _tokens(self, prompt: TypedPrompt, params: SamplingParams, special: bool) -> tuple[str | None, list[int]]:
        """(text if known, ids): tokenised where needed, cut to truncate_prompt_tokens, checked against the limits."""
        text = prompt.get("prompt")
        given = prompt.get("prompt_token_ids")
        if given is not None:
            assert isinstance(given, list)
            ids = list(given)
            # why here: routes hand over ids that nobody has parsed, and a table is read by them
            if not ids or min(ids) < 0 or max(ids) >= self.limits.vocab_size:
                bad = next((i for i in ids if not 0 <= i < self.limits.vocab_size), ids)
                wanted = f"ids from 0 and below the vocabulary size ({self.limits.vocab_size}), at least one"
                raise PromptError.of("prompt_token_ids", bad, wanted)
        elif self.tokenizer is None:
            raise PromptError(
                "A text prompt needs a tokenizer, and skip_tokenizer_init=True left it out.", field="prompt"
            )
        else:
            assert isinstance(text, str)
            self.refuse_endless(text)
            ids = self.tokenizer.encode(text, add_special_tokens=special)
        if not ids:
            raise PromptError("The prompt has no tokens. Give at least one.", field="prompt", value=text)
        keep = params.truncate_prompt_tokens
        if keep is not None:
            # why: -1 keeps what fits and still leaves room for one token of answer
            ids = ids[-(self.limits.max_model_len - 1 if keep == -1 else keep) :]
        self._fits(len(ids))
        return text, ids

    def refuse_endless(self, text: str) -> None:
        """A text that cannot fit whatever its tokens are is refused before it costs tokenizer time."""
        longest_token = 256
        if len(text) > self.limits.max_model_len * longest_token:
            raise PromptError(
                f"The prompt has {len(text)} characters, which cannot fit into max_model_len "
                f"({self.limits.max_model_len} tokens). Shorten it.",
                field="prompt",
                value=text,
            )

    def _fits(self, num_tokens: int) -> None:
        top = self.limits.max_model_len
        if num_tokens >= top:
            raise PromptError(
                f"The prompt has {num_tokens} tokens, but max_model_len is {top} and one token must be left for the "
                f"answer. Shorten the prompt, set truncate_prompt_tokens, or raise max_model_len.",
                field="prompt",
            )

    def _max_len(self, prompt_len: int, params: SamplingParams) -> int:
        top = self.limits.max_model_len
        return top if params.max_tokens is None else min(top, prompt_len + params.max_tokens)

    def _seeds(self, params: SamplingParams) -> tuple[int, ...]:
        """One per sequence. Without a seed of its own a request draws the next one of the engine's stream."""
        base = params.seed
        if base is None:
            base = sequence_seed(self.seed, -1 - next(self._drawn))
        return tuple(sequence_seed(base, i) for i in range(params.n))

    def _bad_words(self, words: list[str]) -> list[list[int]]:
        """Each word as token ids, at the start of a text and after a space (the two ways it can be written)."""
        if self.tokenizer is None:
            raise ValidationError("bad_words needs a tokenizer.", field="bad_words")
        found: list[list[int]] = []
        for word in words:
            for form in (word, " " + word.lstrip()):
                ids = self.tokenizer.encode(form, add_special_tokens=False)
                if ids and ids not in found:
                    found.append(ids)
        return found


_UNBUILT = (
    "logprob_token_ids",
    "prompt_logprob_token_ids",
    "thinking_token_budget",
    "routed_experts_prompt_start",
    "trace_decode_token_ids",
)
