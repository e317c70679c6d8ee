"""How many query tokens a step may have, and how they are dealt to one sequence.

For: the limits of SchedulerPlan, and its time target: while sequences decode and few wait, prefill is cut so that the
predicted step stays short and no stream stutters; with nobody to disturb, or many waiting, the full budget is used.

    seconds of a step = base + query tokens * each        both begin as the Plan guesses and follow what steps take

A step that misses its prediction moves both numbers in proportion to their share in it: decodes teach the base, chunks
the cost of a token. Does not know: sequences, blocks, clocks. Invariant: every decoding sequence gets a token.
Called by: scheduler, engine.
"""

from vllm.errors import ValidationError
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.sizes import TOTALS, lines_for
from vllm.util.arith import cdiv

BACKLOG, ENDLESS = 3, 8
"""Steps by the target that prompts would take, beyond which they get the largest recorded size (it computes a token
soonest, so the last in line gain more than a stream loses); and steps of that size, beyond which they get all."""
LEAST_CHUNK = 16
"""Query tokens that prefill gets in a step whatever the target says, so that it gets on."""
FEW_WAITING = 4
STRETCH = 2.0
"""A step of decodes may always take this much longer for the sake of prefill, also where it misses the target alone."""
_RATE = 0.5
"""How far a step moves the prediction: long prompts are few, and the second one should find what the first taught."""
_ODD = 8.0
"""Times the prediction beyond which a step counts no more: a compilation, a page fault."""


class StepBudget:
    """Limits of one engine's steps. ValidationError for limits that no schedule can keep."""

    def __init__(self, limits: SchedulerPlan) -> None:
        _check(limits)
        self.limits = limits
        self._base, self._each = limits.step_base_seconds, limits.step_token_seconds

    def tokens(self, num_decoding: int, num_waiting: int, left: int = 0) -> int:
        """Most query tokens of the next step; `num_waiting` sequences have `left` tokens of prompts to compute."""
        limits = self.limits
        most = limits.max_num_batched_tokens
        if limits.step_seconds <= 0 or not num_decoding or not limits.enable_chunked_prefill:
            return most
        decodes = num_decoding * self.usual_query(num_decoding)
        rooms = self._rooms(decodes)
        deep = num_waiting > max(FEW_WAITING, num_decoding // 4)
        if left > ENDLESS * rooms[-1] if rooms else deep:
            return most
        target = max(limits.step_seconds, STRETCH * (self._base + decodes * self._each))
        in_time = int((target - self._base) / self._each) if self._each > 0 else most
        wanted = min(most, max(in_time, decodes + LEAST_CHUNK))
        if not rooms:
            return wanted
        room = max([n for n in rooms if decodes + n <= wanted], default=rooms[0])
        if left > BACKLOG * room:
            room = rooms[-1]
        # why: prompts take as few steps as the room allows, and then the least for each
        share = cdiv(left, max(1, cdiv(left, room)))
        return decodes + next(n for n in rooms if n >= share)

    def _rooms(self, decodes: int) -> list[int]:
        """Tokens of prompts that steps of a recorded size have beside so many decodes; none where no size fits."""
        lines = lines_for(decodes) if self.limits.fills_sizes else None
        rooms = [] if lines is None else [total - lines for total in TOTALS if total - lines >= LEAST_CHUNK]
        return [n for n in rooms if decodes + n <= self.limits.max_num_batched_tokens]

    def usual_query(self, num_decoding: int) -> int:
        """Query tokens of a decode: the most a sequence can gain in a step, or fewer where the budget is small."""
        share = self.limits.max_num_batched_tokens // max(1, num_decoding)
        return max(1, min(self.limits.max_tokens_per_step, share))

    def chunk_len(self, left: int, budget: int) -> int:
        """How many of `left` known tokens one sequence may take of `budget`."""
        if not self.limits.enable_chunked_prefill:
            return left if left <= budget else 0
        cap = self.limits.long_prefill_token_threshold
        return min(left, budget, cap) if cap > 0 else min(left, budget)

    def expected(self, num_tokens: int) -> float:
        """Seconds that a step of so many query tokens should take."""
        return self._base + num_tokens * self._each

    def observe(self, num_tokens: int, seconds: float) -> None:
        """A step of `num_tokens` query tokens took `seconds` (0.0: not measured)."""
        expected = self.expected(num_tokens)
        if seconds > 0 and expected > 0:
            missed = min(_ODD, max(1 / _ODD, seconds / expected))
            share = self._base / expected
            self._base *= missed ** (_RATE * share)
            self._each *= missed ** (_RATE * (1.0 - share))


def _check(plan: SchedulerPlan) -> None:
    if plan.max_num_batched_tokens < plan.max_num_seqs:
        raise ValidationError.of(
            "max_num_batched_tokens",
            plan.max_num_batched_tokens,
            f"at least max_num_seqs ({plan.max_num_seqs}), so that every running sequence can get a token",
        )
    if not plan.enable_chunked_prefill and plan.max_num_batched_tokens < plan.max_model_len:
        raise ValidationError.of(
            "max_num_batched_tokens",
            plan.max_num_batched_tokens,
            f"at least max_model_len ({plan.max_model_len}) when enable_chunked_prefill is False",
        )
