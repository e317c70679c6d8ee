"""How many tokens an answer took. Called by: routes/completions, routes/chat."""

from typing import Any

from vllm.engine.deliver import Delivery
from vllm.outputs import RequestOutput


class Usage:
    """Counts the tokens of one HTTP request."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        self._prompt = sum(len(d.taken.prompt_token_ids) for d in deliveries)
        self._completion = self.num_thought_tokens = 0
        self._cached: dict[int, int] = {}

    def note(self, place: int, output: RequestOutput, num_new: int) -> None:
        """An output of prompt `place` with `num_new` tokens more than the one before."""
        self._completion += num_new
        self._cached[place] = output.num_cached_tokens or 0

    def as_dict(self) -> dict[str, Any]:
        """In OpenAI's words."""
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": self._completion,
            "total_tokens": self._prompt + self._completion,
            "prompt_tokens_details": {"cached_tokens": sum(self._cached.values())},
            "completion_tokens_details": {"reasoning_tokens": self.num_thought_tokens},
        }
