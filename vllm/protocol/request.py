"""What a client asked: an immutable request. It owns `sampling.n` sequences; the engine makes them.

A prompt is a list of spans, so that cache keys, media and isolation share one road: a span is tokens, or embeddings
with a content hash that take the place of `num_tokens` tokens. Requests cross to the engine's process as they are, so
everything here is plain data; spans carry their kind (`tag`), because a prompt may mix them.
"""

from dataclasses import dataclass, field

import msgspec

from vllm.sampling_params import SamplingParams


class TokenSpan(msgspec.Struct, frozen=True, tag=True):
    """A run of token ids."""

    token_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Positions the span takes."""
        return len(self.token_ids)


class EmbedSpan(msgspec.Struct, frozen=True, tag=True):
    """Embeddings in place of tokens; `content_hash` (at least 16 bytes) stands for them in cache keys."""

    num_tokens: int
    content_hash: bytes
    filler_id: int = 0


Span = TokenSpan | EmbedSpan


@dataclass(frozen=True, slots=True)
class Request:
    """One request, checked and complete. `seeds[i]` is the noise seed of sibling sequence i (see sampling)."""

    request_id: str
    spans: tuple[Span, ...]
    sampling: SamplingParams
    seeds: tuple[int, ...]
    max_len: int
    """Most tokens (prompt and output) that a sequence may reach; max_tokens and max_model_len are both in it."""
    stop_ids: frozenset[int]
    """Token ids that end a sequence: EOS ids (unless ignore_eos) and stop_token_ids."""
    arrival: float = 0.0
    priority: int = 0
    tenant: str = ""
    cache_salt: str = ""
    features: dict[str, object] = field(default_factory=dict)

    @property
    def prompt_len(self) -> int:
        """Positions of the prompt."""
        return sum(s.num_tokens for s in self.spans)

    def prompt_token_ids(self) -> list[int]:
        """The prompt as ids; positions of embeddings carry their filler id."""
        ids: list[int] = []
        for s in self.spans:
            ids.extend(s.token_ids if isinstance(s, TokenSpan) else [s.filler_id] * s.num_tokens)
        return ids
