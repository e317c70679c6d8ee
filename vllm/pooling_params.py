"""Per-request knobs of pooling (embedding, classification, scoring), validated once, here.

Plain data like SamplingParams; knows nothing of models. Callers: users, the HTTP routes, engine/intake.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from vllm.errors import ValidationError, check_bool, check_int

TASKS = ("embed", "classify", "score", "token_embed", "token_classify", "plugin")


@dataclass(slots=True)
class PoolingParams:
    """How to pool one prompt. Raises ValidationError naming field, value and allowed range."""

    truncate_prompt_tokens: int | None = None  # keep this many last tokens; -1: as many as fit
    dimensions: int | None = None  # shorten an embedding to this many numbers
    use_activation: bool | None = None  # None: what the model says
    step_tag_id: int | None = None
    returned_token_ids: list[int] | None = None
    task: str | None = None
    skip_reading_prefix_cache: bool | None = None
    extra_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.truncate_prompt_tokens is not None:
            top = 2**31 - 1
            self.truncate_prompt_tokens = check_int("truncate_prompt_tokens", self.truncate_prompt_tokens, -1, top)
            if self.truncate_prompt_tokens == 0:
                raise ValidationError.of("truncate_prompt_tokens", 0, "-1 or at least 1")
        if self.dimensions is not None:
            self.dimensions = check_int("dimensions", self.dimensions, 1, 2**20)
        if self.use_activation is not None:
            self.use_activation = check_bool("use_activation", self.use_activation)
        if self.task is not None and self.task not in TASKS:
            raise ValidationError.of("task", self.task, f"one of {', '.join(TASKS)}")
        if self.returned_token_ids is not None:
            self.returned_token_ids = [
                check_int("returned_token_ids", i, 0, 2**31 - 1) for i in self.returned_token_ids
            ]

    def clone(self) -> PoolingParams:
        """A copy that shares no list with this one."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: value.copy() for name, value in values.items() if isinstance(value, (list, dict))}
        return PoolingParams(**values)
