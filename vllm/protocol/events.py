"""What the engine tells the front: one update per sequence that gained tokens or ended in a step.

Plain data, so that it crosses a pipe as it is. Times are seconds of the monotonic clock.
"""

from dataclasses import dataclass, field

from vllm.protocol.step import TokenLogprobs


@dataclass(slots=True)
class SequenceUpdate:
    """News of sequence `index` of a request."""

    request_id: str
    index: int
    token_ids: list[int]
    """New tokens, the one that ended the sequence included."""
    logprobs: list[TokenLogprobs] | None = None
    """One per new token, if asked."""
    prompt_logprobs: list[tuple[int, TokenLogprobs]] = field(default_factory=list)
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
