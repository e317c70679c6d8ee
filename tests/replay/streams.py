"""Recorded arrival streams, and the plans that an engine makes of them.

A stream is a text file: one arrival or abort per line, with the step before which it came. Prompts are written as parts
(`seed:length`), so that shared beginnings are visible and files stay small. `digest` runs the stream over the
fingerprint executor and hashes every StepPlan; tests pin the digests, so that a change of any plan shows in a diff.

    python -m tests.replay.streams        write pins.txt again, after a change of plans that was meant
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tests.fakes.fingerprint import FingerprintExecutor
from vllm.engine.core import Engine
from vllm.kv.groups import make_kv_plan
from vllm.protocol.events import Event, StepPlanned
from vllm.protocol.kv import FullKV, KVKind, SlidingKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import StepPlan
from vllm.sampling_params import SamplingParams

HERE = Path(__file__).parent
PINS = HERE / "pins.txt"
FULL, WINDOW = FullKV(2, 4, 4), SlidingKV(2, 4, 4, 40)

# name -> (stream file, layers, pool blocks, limits)
RUNS: dict[str, tuple[str, list[KVKind], int, SchedulerPlan]] = {
    "chat": ("chat.jsonl", [FULL], 400, SchedulerPlan(16, 64, 512)),
    "chat, run-ahead": ("chat.jsonl", [FULL], 400, SchedulerPlan(16, 64, 512, run_ahead=1)),
    "chat, tiny pool": ("chat.jsonl", [FULL], 34, SchedulerPlan(16, 64, 512, run_ahead=1)),
    "chat, windows": ("chat.jsonl", [WINDOW] * 5 + [FULL], 400, SchedulerPlan(16, 64, 512, run_ahead=1)),
    "chat, no cache": ("chat.jsonl", [FULL], 400, SchedulerPlan(16, 64, 512, enable_prefix_caching=False)),
    "chat, speculation": ("chat.jsonl", [FULL], 400, SchedulerPlan(16, 64, 512, run_ahead=1, max_tokens_per_step=3)),
    "burst": ("burst.jsonl", [FULL], 300, SchedulerPlan(8, 48, 512)),
    "burst, priority": ("burst.jsonl", [FULL], 300, SchedulerPlan(8, 48, 512, policy="priority", run_ahead=1)),
    "burst, fair": ("burst.jsonl", [FULL], 300, SchedulerPlan(8, 48, 512, policy="fair", run_ahead=1)),
    "burst, whole prompts": ("burst.jsonl", [FULL], 300, SchedulerPlan(8, 512, 512, enable_chunked_prefill=False)),
}


def prompt(parts: list[str]) -> tuple[int, ...]:
    """`["3:16", "9:4"]` -> 16 tokens of text 3, then 4 of text 9."""
    ids: list[int] = []
    for part in parts:
        seed, length = map(int, part.split(":"))
        text = hashlib.shake_128(str(seed).encode()).digest(length)
        ids.extend(text)
    return tuple(ids)


def as_request(line: dict[str, object]) -> Request:
    """The request of an arrival line; what a line leaves out is the usual."""
    parts, n = line["prompt"], line.get("n", 1)
    assert isinstance(parts, list) and isinstance(n, int)
    ids = prompt(parts)
    output = line["output"]
    assert isinstance(output, int)
    return Request(
        request_id=str(line["add"]),
        spans=(TokenSpan(ids),),
        sampling=SamplingParams(n=n, max_tokens=output),
        seeds=tuple(range(n)),
        max_len=len(ids) + output,
        stop_ids=frozenset(line.get("stop", ())),  # type: ignore[arg-type]
        priority=line.get("priority", 0),  # type: ignore[arg-type]
        tenant=str(line.get("tenant", "")),
        cache_salt=str(line.get("salt", "")),
    )


class PlanRecorder:
    """An observer that keeps a hash of all plans, and some counts for the pin's reader."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.num_steps = self.num_tokens = 0

    def on(self, event: Event) -> None:
        if isinstance(event, StepPlanned):
            self.hash.update(as_text(event.plan).encode())
            self.num_steps += 1
            self.num_tokens += event.plan.num_tokens


def as_text(plan: StepPlan) -> str:
    """A plan as one line, with sampling options left out (they are the request's, not the scheduler's)."""
    fields = {**asdict(plan), "opens": [{**asdict(o), "sampling": None} for o in plan.opens]}
    return json.dumps(fields, sort_keys=True, default=sorted)


def lines_of(name: str) -> Iterator[dict[str, object]]:
    """The arrivals and aborts of a stream file, in order."""
    for text in (HERE / name).read_text("utf-8").splitlines():
        yield json.loads(text)


def digest(run: str) -> str:
    """`hash steps tokens preemptions hits` of a run."""
    stream, layers, num_blocks, limits = RUNS[run]
    kv = make_kv_plan(layers, "float32", num_blocks=num_blocks, block_size=8, usual_len=256)
    recorder = PlanRecorder()
    engine = Engine(limits, kv, FingerprintExecutor(kv, limits), observers=[recorder])
    todo, step = deque(lines_of(stream)), 0
    while todo or engine.has_work:
        while todo and int(str(todo[0]["step"])) <= step:
            line = todo.popleft()
            if "abort" in line:
                engine.abort(str(line["abort"]))
            else:
                engine.add(as_request(line))
        for update in engine.step():
            assert update.error is None, update.error
        step += 1
    stats = engine.stats()
    return (
        f"{recorder.hash.hexdigest()[:32]} {recorder.num_steps} steps {recorder.num_tokens} tokens "
        f"{stats.num_preempted} preempted {stats.num_prefix_hit} hit"
    )


def main() -> None:
    """Write the pins."""
    PINS.write_text("".join(f"{run}: {digest(run)}\n" for run in RUNS), "utf-8")


if __name__ == "__main__":
    main()
