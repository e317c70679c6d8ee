"""May the first in line come in, and with how many tokens?

For: the answer, from the free blocks and what was promised to those who run. Does not know: rows, steps' contents,
policies; it changes nothing but its memory of the last refusal. Called by: the scheduler.
"""

from collections.abc import Sequence as Items

from vllm.errors import CapacityError
from vllm.kv.groups import blocks_needed, max_tokens_that_fit
from vllm.kv.manager import Hit, KVManager
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.sequence import Sequence
from vllm.util.arith import largest

ASK_AGAIN = 16
"""Steps after which a sequence that found too few blocks is looked at again: prefixes may have come that it shares."""


class Door:
    """Where the waiting are counted before they come in."""

    def __init__(self, limits: SchedulerPlan, kv: KVManager) -> None:
        self.limits = limits
        self.kv = kv
        self._refused = (-1, 0, 0)
        """(ticket of the sequence refused last, blocks it wanted, step)."""

    def check_fits(self, max_len: int) -> None:
        """CapacityError when one sequence of `max_len` tokens cannot run even alone."""
        room = self.limits.max_model_len
        if max_len > room:
            raise CapacityError(f"max_len is {max_len} tokens, but max_model_len is {room}; ask for at most {room}")
        # why: a prompt that may not be cut needs all its blocks at once, also those behind a window.
        k = self.limits.max_tokens_per_step if self.limits.enable_chunked_prefill else room
        if blocks_needed(self.kv.plan, max_len, k) > self.kv.plan.num_blocks - 1:
            most = max_tokens_that_fit(self.kv.plan, num_query=k)
            raise CapacityError(
                f"prompt and output may reach {max_len} tokens, but the KV cache holds {most} at most; "
                f"ask for at most {most} tokens in all or give the KV cache more memory"
            )

    def match(self, seq: Sequence) -> Hit:
        """The prefix hit `seq` may use. SamplingParams asks for none when it wants log-probabilities of the prompt."""
        return self.kv.no_hit() if seq.request.sampling.skip_reading_prefix_cache else self.kv.match(seq)

    def demand(self, seq: Sequence, hit: Hit, n: int, prefilling: Items[Sequence]) -> int:
        """Free blocks to have before `seq` comes in beside others in chunks of `n`: all its known tokens, the rest of
        the prefills that run, and a little for growth."""
        promised = sum(self.kv.missing(other, len(other.tokens)) for other in prefilling)
        in_flight = n * (self.limits.run_ahead + 1)
        return self.kv.demand(len(seq.tokens), hit, in_flight) + promised + self.kv.plan.num_blocks // 100

    def lets_in(self, seq: Sequence, hit: Hit, n: int, prefilling: Items[Sequence], step: int) -> bool:
        """Whether `seq` may start with `n` tokens beside others so that nobody who runs starves."""
        need = self.demand(seq, hit, n, prefilling)
        if need > self.kv.num_free:
            self._refused = (seq.ticket, need, step)
        return need <= self.kv.num_free

    def still_shut(self, seq: Sequence, step: int) -> bool:
        """Whether `seq` was refused lately and no more blocks are free than then would have been too few.

        why: matching a long prompt costs more than the rest of a plan, and it would be done in vain in every step.
        """
        ticket, need, since = self._refused
        return ticket == seq.ticket and self.kv.num_free < need and step - since < ASK_AGAIN

    def fit_alone(self, hit: Hit, n: int) -> int:
        """How many of `n` tokens a sequence that has the cache to itself can start with; 0: none."""
        most = largest(0, n, lambda m: self.kv.demand(hit.length + m, hit, m) <= self.kv.num_free)
        return most if most == n or self.limits.enable_chunked_prefill else 0
