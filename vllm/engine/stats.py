"""A snapshot of the engine in numbers, for logs, `/metrics` and tests. Knows nothing of who asks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """All counts are since the engine started, unless they say `now`."""

    num_running: int
    """Sequences with a row, now."""
    num_waiting: int
    """Sequences without one, now; siblings that wait for their prompt included."""
    kv_usage: float
    """Part of the KV pool that sequences hold, 0..1, now."""
    num_prefix_queried: int
    """Known tokens of admitted sequences."""
    num_prefix_hit: int
    """Those of them that were in the prefix cache."""
    num_preempted: int
    num_steps: int
    num_query_tokens: int
    """Tokens computed."""
    num_sampled_tokens: int
    """Tokens given to sequences."""
    num_waiting_tokens: int = 0
    """Known tokens of the sequences in line, now."""
    num_free_rows: int = 0
    """Sequences that could still get a row, now."""
    num_added: int = 0
    """Requests that came, refused ones included."""
