"""What goes on inside an engine, for a person who watches: sequences, blocks, the last steps. Made when asked for.

Does not know: HTTP, pages. Invariants: the loop pays one append a step, and nothing else while nobody looks; no token
and no text is shown. Called by: entrypoints.engine_main.
"""

from collections import deque

from vllm.engine.core import Engine
from vllm.engine.glance import CACHED, FREE, HELD, SHARED, Glance, SequenceMark, StepMark
from vllm.protocol.events import Event, StepSettled
from vllm.protocol.kv import NULL_BLOCK

STEPS = 240
CELLS = 2048
MOST_SEQUENCES = 256


class Recorder:
    """An observer that remembers the last steps."""

    def __init__(self) -> None:
        self._steps: deque[StepMark] = deque(maxlen=STEPS)

    def on(self, event: Event) -> None:
        """Remember a step."""
        if isinstance(event, StepSettled):
            gap = event.at - self._steps[-1].at if self._steps else 0.0
            counts = (event.num_tokens, event.num_sampled, event.num_running, event.num_waiting, event.kv_usage)
            self._steps.append(StepMark(event.step_id, event.at, event.seconds or gap, *counts))

    def glance(self, engine: Engine, now: float) -> Glance:
        """A look at `engine`; `now` is the monotonic clock."""
        pool = engine.kv.pool
        states = [SHARED if refs > 1 else HELD if refs else FREE for refs in pool.refs]
        for block in pool.cached:
            states[block] = CACHED
        del states[NULL_BLOCK]
        per_cell = -(-len(states) // CELLS)
        cells = bytes(max(states[i : i + per_cell]) for i in range(0, len(states), per_cell))
        live = [seq for siblings in engine.live() for seq in siblings]
        marks = [
            SequenceMark(
                request_id=seq.request_id,
                index=seq.index,
                state="waiting" if seq.row < 0 else "prefill" if seq.num_computed < seq.prompt_len else "decode",
                prompt_len=seq.prompt_len,
                num_computed=seq.num_computed,
                num_cached=seq.num_cached_tokens,
                num_output=len(seq.tokens) - seq.prompt_len,
                tenant=seq.request.tenant,
                age=max(0.0, now - seq.arrival),
            )
            for seq in live[:MOST_SEQUENCES]
        ]
        held = sum(state >= HELD for state in states)
        steps = list(self._steps)
        return Glance(now, len(states), per_cell, cells, len(pool.cached), held, steps, marks, len(live))
