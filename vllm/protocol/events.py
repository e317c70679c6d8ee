"""What the engine tells the front (one update per sequence that gained tokens or ended in a step) and its observers.

Plain data, so that it crosses a pipe as it is. Times are seconds of the monotonic clock.
"""

from dataclasses import dataclass

import msgspec

from vllm.protocol.step import StepPlan, TokenLogprobs


class SequenceUpdate(msgspec.Struct, gc=False, array_like=True):
    """News of sequence `index` of a request."""

    # why: hundreds are made in every step; a Struct costs a third of a dataclass, and none can be in a cycle.

    request_id: str
    index: int
    token_ids: list[int]
    """New tokens, the one that ended the sequence included."""
    logprobs: list[TokenLogprobs] | None = None
    """One per new token, if asked."""
    prompt_logprobs: list[tuple[int, TokenLogprobs]] = []
    """(position, logprobs of the prompt token there), new since the last update; on sequence 0 only."""
    finish_reason: str | None = None
    """stop, length, abort or error; None while it goes on."""
    stop_reason: int | None = None
    """The stop token id that ended it; None for the model's own EOS."""
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    scheduled_at: float = 0.0
    emitted_at: float = 0.0
    error: str | None = None
    states: bytes | None = None
    """What a head made of the hidden states."""


@dataclass(slots=True)
class RequestAdded:
    """A request was accepted."""

    request_id: str
    num_prompt_tokens: int
    num_sequences: int
    at: float


@dataclass(slots=True)
class StepPlanned:
    """A plan was handed to the executor."""

    plan: StepPlan
    at: float


@dataclass(slots=True)
class StepSettled:
    """The result of a step was taken in."""

    step_id: int
    num_tokens: int
    """Query tokens of the step."""
    num_sampled: int
    """Tokens that the step gave."""
    num_running: int
    num_waiting: int
    kv_usage: float
    """Part of the pool that sequences hold, 0..1."""
    seconds: float
    """What the worker measured, 0.0 if it does not."""
    at: float


@dataclass(slots=True)
class SequencePreempted:
    """A sequence lost its blocks and waits again."""

    request_id: str
    index: int
    at: float


@dataclass(slots=True)
class SequenceFinished:
    """A sequence ended."""

    request_id: str
    index: int
    finish_reason: str
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    arrival: float
    scheduled_at: float
    at: float


Event = RequestAdded | StepPlanned | StepSettled | SequencePreempted | SequenceFinished
