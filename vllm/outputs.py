"""What a user gets back: plain data with vLLM's names.

Knows nothing of how it was made. Invariant: `token_ids` and `logprobs` of a CompletionOutput have equal length.
Callers: engine/deliver fills these, entrypoints hand them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar


@dataclass(slots=True)
class Logprob:
    """One candidate token: natural log of its probability, rank (1 is the most likely), text."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PromptLogprobs = list[dict[int, Logprob] | None]  # one per prompt token; the first has no prediction: None
SampleLogprobs = list[dict[int, Logprob]]  # one per generated token


@dataclass
class RequestStateStats:
    """When things happened to a request. `arrival_time` is wall clock; the `_ts` are monotonic; all in seconds."""

    num_generation_tokens: int = 0
    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0
    is_corrupted: bool = False

    def _wall(self, ts: float) -> float | None:
        """A monotonic moment as wall clock, or None while it has not come."""
        return self.arrival_time + (ts - self.queued_ts) if ts else None

    @property
    def first_scheduled_time(self) -> float | None:
        return self._wall(self.scheduled_ts)

    @property
    def first_token_time(self) -> float | None:
        return self._wall(self.first_token_ts)

    @property
    def last_token_time(self) -> float | None:
        return self._wall(self.last_token_ts)

    @property
    def finished_time(self) -> float | None:
        return self._wall(self.last_token_ts)

    @property
    def time_in_queue(self) -> float | None:
        return self.scheduled_ts - self.queued_ts if self.scheduled_ts else None


RequestMetrics = RequestStateStats


@dataclass
class CompletionOutput:
    """One generated text. `finish_reason`: stop | length | abort | error | repetition, None while running.

    `stop_reason` is the stop string or stop token id that ended it; None for the model's own end token.
    """

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None = None
    logprobs: SampleLogprobs | None = None
    routed_experts: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = field(default=None, repr=False)
    sampling_mask: Any = field(default=None, repr=False)
    spec_decode_metrics: Any = field(default=None, repr=False)
    weight_versions: Any = field(default=None, repr=False)

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass
class RequestOutput:
    """All that is known of one request: its prompt and its `outputs`, one per sequence."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: PromptLogprobs | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestStateStats | None = None
    lora_request: Any = None
    encoder_prompt: str | None = None
    encoder_prompt_token_ids: list[int] | None = None
    num_cached_tokens: int | None = None
    num_cache_creation_tokens: int | None = field(default=None, repr=False)
    prompt_token_id_logprobs: Any = field(default=None, repr=False)
    kv_transfer_params: dict[str, Any] | None = field(default=None, repr=False)
    ec_transfer_params: dict[str, Any] | None = field(default=None, repr=False)

    def add(self, later: RequestOutput, aggregate: bool) -> None:
        """Merge a later output of the same request; with `aggregate` texts are joined (deltas), else replaced."""
        self.finished |= later.finished
        self.metrics = later.metrics or self.metrics
        mine = {one.index: position for position, one in enumerate(self.outputs)}
        for new in later.outputs:
            at = mine.get(new.index)
            if at is None:
                self.outputs.append(new)
            elif aggregate:
                _join(self.outputs[at], new)
            else:
                self.outputs[at] = new


def _join(old: CompletionOutput, new: CompletionOutput) -> None:
    """Append a delta to `old` in place."""
    old.text += new.text
    old.token_ids = [*old.token_ids, *new.token_ids]
    if new.logprobs:
        old.logprobs = [*(old.logprobs or ()), *new.logprobs]
    old.cumulative_logprob = new.cumulative_logprob
    old.finish_reason = new.finish_reason
    old.stop_reason = new.stop_reason


@dataclass
class BeamSearchSequence:
    """One beam: its tokens with the prompt's before them, and their summed log-probability."""

    tokens: list[int]
    logprobs: SampleLogprobs
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = field(default=None, repr=False)
    orig_prompt: Any = field(default=None, repr=False)


@dataclass
class BeamSearchOutput:
    """The best beams of one prompt, best first."""

    sequences: list[BeamSearchSequence]


@dataclass
class PoolingOutput:
    """Raw pooled numbers: a vector, or one per token."""

    data: Any


@dataclass
class EmbeddingOutput:
    """An embedding, as a list of floats."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)


@dataclass
class ClassificationOutput:
    """Class probabilities (or logits without activation)."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)


@dataclass
class ScoringOutput:
    """How well two texts belong together."""

    score: float


_O = TypeVar("_O", PoolingOutput, EmbeddingOutput, ClassificationOutput, ScoringOutput)


@dataclass
class PoolingRequestOutput(Generic[_O]):
    """The answer to one pooling request."""

    request_id: str
    outputs: _O
    prompt_token_ids: list[int]
    num_cached_tokens: int = 0
    finished: bool = True
    error: str | None = field(default=None, repr=False)


class EmbeddingRequestOutput(PoolingRequestOutput[EmbeddingOutput]):
    """PoolingRequestOutput of an embedding."""


class ClassificationRequestOutput(PoolingRequestOutput[ClassificationOutput]):
    """PoolingRequestOutput of a classification."""


class ScoringRequestOutput(PoolingRequestOutput[ScoringOutput]):
    """PoolingRequestOutput of a score."""
