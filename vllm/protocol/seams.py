"""The places where a feature may plug into the host: S1 (resources) and S8 (observers).

For: the shape of a plug. Does not know: any feature. Invariant: absent means not in the list, so an engine without
features pays nothing. Called by: scheduler (S1), engine (S8).
"""

from typing import Protocol

from vllm.protocol.events import Event
from vllm.protocol.request import Request
from vllm.protocol.sequence import Claimed


class Resource(Claimed, Protocol):
    """S1: something a sequence must have before it is given tokens: an adapter slot, a compiled grammar, a quota.

    `reserve(seq, num_tokens)` is called when the sequence is admitted and for every later chunk of known tokens. False
    means not now: the scheduler asks again in a later step and serves others meanwhile. `release(seq)` comes once for
    every admission, when the sequence is preempted or ends, or when it could not be admitted after all.
    """

    def claims(self, request: Request) -> bool:
        """Whether the sequences of this request need the resource; asked once, when the request is added."""
        ...


class Observer(Protocol):
    """S8: hears what happens in the engine: metrics, traces, journal, replay recorder."""

    def on(self, event: Event) -> None:
        """Called on the engine's thread, in order. Must be quick and must not raise."""
        ...
