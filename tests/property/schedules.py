"""Random schedules for the host tower: one seed is one whole run, from an engine's birth to an idle engine.

Every choice comes from the seed: network, pool, limits, requests, aborts. `run_schedule` raises AssertionError when a
token differs from the reference, a sequence is lost, or the books are wrong.
"""

import random
from dataclasses import dataclass, field, replace

from tests.fakes.fingerprint import VOCAB, FingerprintExecutor, contents, reference
from vllm.engine.core import Engine
from vllm.errors import CapacityError
from vllm.kv.groups import blocks_needed, make_kv_plan
from vllm.protocol.events import SequenceUpdate
from vllm.protocol.kv import FullKV, KVKind, KVPlan, LatentKV, SlidingKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import EmbedSpan, Request, Span, TokenSpan
from vllm.sampling_params import SamplingParams

FULL, LATENT = FullKV(2, 4, 4), LatentKV(16)
MAX_LEN = 56


def random_kinds(r: random.Random) -> list[KVKind]:
    """A small network: full, sliding or mixed layers, of equal and of different widths."""
    window = r.randint(2, 12)  # why: with a window of 1 nothing is ever read, and every prefix is a hit
    return r.choice(
        [
            [FULL] * 2,
            [LATENT],
            [FULL, SlidingKV(2, 4, 4, window)],
            [SlidingKV(2, 4, 4, window)] * 5 + [FULL],
            [FULL, SlidingKV(1, 4, 4, window)],
            [SlidingKV(1, 4, 4, window)],
            [SlidingKV(2, 4, 4, window), SlidingKV(2, 4, 4, window + 3), FULL],
        ]
    )


def random_limits(r: random.Random) -> tuple[KVPlan, SchedulerPlan]:
    """A pool that is often tiny, and limits that are often tight."""
    k = r.choice([1, 1, 1, 2, 3, 4])
    kv = make_kv_plan(random_kinds(r), "float32", num_blocks=2, block_size=r.choice([1, 2, 4]), usual_len=32)
    chunked = r.random() < 0.85
    alone = blocks_needed(kv, MAX_LEN, k if chunked else MAX_LEN)
    num_blocks = r.choice([alone + 1, alone + r.randint(1, 8), 2 * alone, 6 * alone])
    kv = KVPlan(kv.groups, num_blocks, kv.num_slabs, kv.block_bytes, kv.dtype)
    num_seqs = r.randint(1, 6)
    limits = SchedulerPlan(
        max_num_seqs=num_seqs,
        max_num_batched_tokens=r.randint(num_seqs, num_seqs + 20) if chunked else MAX_LEN + r.randint(0, 20),
        max_model_len=MAX_LEN,
        policy=r.choice(["fcfs", "priority", "fair"]),
        enable_prefix_caching=r.random() < 0.75,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=r.choice([0, 0, 3]),
        run_ahead=r.choice([0, 1, 1, 2]),
        max_tokens_per_step=k,
        step_seconds=r.choice([0.0, 0.0, 1.0]),
        step_base_seconds=0.5,
        step_token_seconds=0.03,
    )
    return kv, limits


def random_spans(r: random.Random) -> tuple[Span, ...]:
    """Prompts that share beginnings, some with embeddings in them."""
    base = r.choice([[1] * 30, list(range(30)), [2, 3] * 15])[: r.randint(1, 25)]
    tail = [r.randrange(VOCAB) for _ in range(r.randint(0, 4))]
    if r.random() < 0.25:
        image = EmbedSpan(4, bytes([r.randint(0, 1)]) * 16, filler_id=7)
        return (TokenSpan(tuple(base[:5])), image, TokenSpan(tuple(tail or [1])))
    return (TokenSpan(tuple(base + tail)),)


def random_request(r: random.Random, name: str, now: float) -> Request:
    """n, lengths, stops, salt, adapter and priority of every sort."""
    spans, n = random_spans(r), r.choice([1, 1, 1, 2, 3, 5])
    prompt_len = sum(span.num_tokens for span in spans)
    return Request(
        request_id=name,
        spans=spans,
        sampling=SamplingParams(
            n=n,
            max_tokens=MAX_LEN,
            min_tokens=r.choice([0, 0, 3]),
            logprobs=r.choice([None, None, 1]),
            prompt_logprobs=r.choice([None, None, None, 1]),
        ),
        seeds=tuple(r.randrange(1 << 60) for _ in range(n)),
        max_len=min(prompt_len + r.choice([1, 2, 8, 15]), MAX_LEN),
        stop_ids=frozenset(r.sample(range(VOCAB), r.choice([0, 0, 3]))),
        arrival=now,
        priority=r.randint(0, 2),
        tenant=r.choice(["x", "y"]),
        cache_salt=r.choice(["", "", "a"]),
        features=r.choice([{}, {}, {"adapter_id": "x"}]),
    )


@dataclass
class Told:
    """What the engine said about one sequence."""

    tokens: list[int] = field(default_factory=list)
    num_logprobs: int = 0
    prompt_positions: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    num_cached: int = 0


@dataclass
class World:
    """An engine over a fingerprint executor, and everything it was asked and has said."""

    kv: KVPlan
    limits: SchedulerPlan
    seed: int = 0
    lazy: bool = False
    zero_rate: float = 0.0

    def __post_init__(self) -> None:
        self.executor = FingerprintExecutor(self.kv, self.limits, self.seed, self.lazy, self.zero_rate)
        self.engine = Engine(self.limits, self.kv, self.executor)
        self.executor.is_held = lambda block: self.engine.kv.pool.refs[block] > 0
        self.requests: dict[str, Request] = {}
        self.told: dict[tuple[str, int], Told] = {}

    def add(self, request: Request) -> bool:
        """False if the engine refused it for its size."""
        request = replace(request, features={**request.features, "contents": tuple(contents(request))})
        try:
            self.engine.add(request)
        except CapacityError:
            return False
        self.requests[request.request_id] = request
        for i in range(request.sampling.n):
            self.told[request.request_id, i] = Told()
        return True

    def step(self) -> None:
        """One step of the engine, and every check that holds between steps."""
        for update in self.engine.step():
            self._hear(update)
        self.engine.check()
        # why: whoever still reads a block that belongs to nobody must get nonsense.
        self.executor.poison(self.engine.kv.pool.clean)

    def _hear(self, update: SequenceUpdate) -> None:
        told = self.told[update.request_id, update.index]
        assert told.finish_reason is None, "news of a sequence that has ended"
        assert update.error is None, update.error
        told.tokens += update.token_ids
        told.num_logprobs += len(update.logprobs or ())
        told.prompt_positions += [position for position, _ in update.prompt_logprobs]
        told.finish_reason = update.finish_reason
        told.num_cached = update.num_cached_tokens

    def finish(self) -> None:
        """Run until idle; then compare everything with the reference."""
        for _ in range(5000):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "the engine does not come to an end"
        assert self.engine.kv.num_free == self.kv.num_blocks - 1, "blocks are held by nobody"
        for (name, index), told in self.told.items():
            self._compare(self.requests[name], index, told)
            assert told.num_cached == 0 or self._may_share(name, index, told.num_cached), (
                "a hit that is somebody else's"
            )

    def _may_share(self, name: str, index: int, length: int) -> bool:
        """Whether another sequence with the same salt and adapter began with these `length` tokens."""
        mine = self.requests[name]
        want = contents(mine)[:length]
        for (other_name, other_index), told in self.told.items():
            other = self.requests[other_name]
            begins = (contents(other) + told.tokens)[:length] == want
            if begins and (name, index) != (other_name, other_index) and _world_of(other) == _world_of(mine):
                return True
        return False

    def _compare(self, request: Request, index: int, told: Told) -> None:
        want = reference(request, index, self.kv)
        assert told.finish_reason is not None, "a sequence never ended"
        if request.sampling.logprobs is not None:
            assert told.num_logprobs == len(told.tokens)
        if told.finish_reason == "abort":
            assert told.tokens == want[: len(told.tokens)], f"{request.request_id}#{index} went wrong before its abort"
            return
        assert told.tokens == want, f"{request.request_id}#{index} gave {told.tokens}, alone it gives {want}"
        stopped = want[-1] in request.stop_ids and len(want) > request.sampling.min_tokens
        assert told.finish_reason == ("stop" if stopped else "length")
        if request.sampling.prompt_logprobs is not None and index == 0:
            assert told.prompt_positions == list(range(1, request.prompt_len))


def _world_of(request: Request) -> tuple[str, object]:
    """What must be equal for two requests to share anything."""
    return request.cache_salt, request.features.get("adapter_id")


def run_schedule(seed: int, num_steps: int = 60) -> World:
    """One random run."""
    r = random.Random(seed)
    kv, limits = random_limits(r)
    world = World(kv, limits, seed, lazy=r.random() < 0.5, zero_rate=r.choice([0, 0, 0.2]))
    rate = r.choice([0.1, 0.3, 0.6])
    for now in range(num_steps):
        if r.random() < rate:
            world.add(random_request(r, f"r{now}", float(now)))
        if r.random() < 0.04 and world.requests:
            world.engine.abort(r.choice(list(world.requests)), r.choice([None, 0, 1]))
        if r.random() < 0.01:
            world.engine.reset_prefix_cache()
        world.step()
    world.finish()
    return world
