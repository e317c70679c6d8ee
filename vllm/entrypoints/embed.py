"""Embeddings offline: prompts in, vectors out, and how near two texts are by them. Called by: LLM.

Does not know: how states become a vector.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vllm.engine.deliver import Delivery
from vllm.entrypoints.offline import LLMEngine
from vllm.entrypoints.progress import Progress
from vllm.errors import RefusedError, ValidationError
from vllm.features.pooling.host import numbers
from vllm.inputs import PromptType, normalize_prompts
from vllm.outputs import (
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
from vllm.pooling_params import PoolingParams

Prompts = PromptType | Sequence[PromptType]
Params = PoolingParams | Sequence[PoolingParams] | None


@dataclass(slots=True)
class Embedder:
    """The pooling half of an LLM."""

    engine: LLMEngine
    ids: "itertools.count[int]"

    def encode(
        self, prompts: Prompts, params: Params, use_tqdm: bool | Callable[..., Any], **changes: Any
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """Vectors as tensors: [E], or [T, E] for the task token_embed."""
        import torch

        def tensor(delivery: Delivery) -> Any:
            flat = torch.tensor(numbers(delivery.states))
            per_token = delivery.taken.request.features["pooling"]["kind"] == "all"  # type: ignore[index]
            return flat.view(len(delivery.taken.prompt_token_ids), -1) if per_token else flat

        done = self._run(prompts, params, use_tqdm, changes)
        return [PoolingRequestOutput(**_head(d), outputs=PoolingOutput(tensor(d))) for d in done]

    def embed(
        self, prompts: Prompts, params: Params, use_tqdm: bool | Callable[..., Any], **changes: Any
    ) -> list[EmbeddingRequestOutput]:
        """Vectors as lists of floats."""
        done = self._run(prompts, params, use_tqdm, {**changes, "task": "embed"})
        return [EmbeddingRequestOutput(**_head(d), outputs=EmbeddingOutput(numbers(d.states))) for d in done]

    def score(
        self, left: Prompts, right: Prompts, params: Params, use_tqdm: bool | Callable[..., Any], **changes: Any
    ) -> list[ScoringRequestOutput]:
        """The cosine between each pair; one text on the left goes with all on the right."""
        first, second = normalize_prompts(left), normalize_prompts(right)
        if len(first) not in (1, len(second)):
            raise ValidationError(
                f"score takes one text and many, or as many on either side; got {len(first)} and {len(second)}."
            )
        found = self.embed([*first, *second], params, use_tqdm, **changes)
        ones, others = found[: len(first)] * (len(second) // len(first)), found[len(first) :]
        return [
            ScoringRequestOutput(
                request_id=f"{a.request_id}_{b.request_id}",
                outputs=ScoringOutput(_cosine(a.outputs.embedding, b.outputs.embedding)),
                prompt_token_ids=[*a.prompt_token_ids, *b.prompt_token_ids],
                num_cached_tokens=a.num_cached_tokens + b.num_cached_tokens,
            )
            for a, b in zip(ones, others, strict=True)
        ]

    def _run(
        self, prompts: Prompts, params: Params, use_tqdm: bool | Callable[..., Any], changes: dict[str, Any]
    ) -> list[Delivery]:
        if changes.pop("lora_request", None) is not None:
            raise RefusedError("lora_request: adapters are not supported yet.", field="lora_request")
        typed = normalize_prompts(prompts)
        wanted = {name: value for name, value in changes.items() if value is not None}
        deliveries = []
        for i, (prompt, one) in enumerate(zip(typed, _each(params, len(typed)), strict=True)):
            try:
                deliveries.append(self.engine.take_pooling(str(next(self.ids)), prompt, replace(one, **wanted)))
            except ValueError as error:
                if len(typed) > 1:
                    error.args = (f"prompts[{i}]: {error}",)
                raise
        with Progress(use_tqdm, len(deliveries)) as bar:
            self.engine.run(deliveries, bar.note)
        return deliveries


def _each(params: Params, count: int) -> Sequence[PoolingParams]:
    if params is None or isinstance(params, PoolingParams):
        return [params or PoolingParams()] * count
    if len(params) != count:
        raise ValidationError.of("pooling_params", f"{len(params)} of them", f"one, or one per prompt ({count})")
    return params


def _head(delivery: Delivery) -> dict[str, Any]:
    """What all answers of this kind begin with."""
    taken = delivery.taken
    return {
        "request_id": taken.request.request_id,
        "prompt_token_ids": taken.prompt_token_ids,
        "num_cached_tokens": delivery.num_cached_tokens,
    }


def _cosine(a: list[float], b: list[float]) -> float:
    size = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / size if size else 0.0
