"""The engine as a state machine: Hypothesis chooses what happens next, and shrinks what goes wrong."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.fakes.fingerprint import VOCAB
from tests.property.schedules import FULL, LATENT, MAX_LEN, World
from vllm.kv.groups import blocks_needed, make_kv_plan
from vllm.protocol.kv import KVKind, KVPlan, SlidingKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import EmbedSpan, Request, Span, TokenSpan
from vllm.sampling_params import SamplingParams

windows = st.integers(1, 10).map(lambda w: SlidingKV(2, 4, 4, w))
short_windows = st.integers(1, 10).map(lambda w: SlidingKV(1, 4, 4, w))
kinds = st.one_of(
    st.just([FULL]),
    st.just([LATENT, LATENT]),
    windows.map(lambda w: [FULL, w]),
    windows.map(lambda w: [w] * 3 + [FULL]),
    short_windows.map(lambda w: [FULL, w]),
    windows.map(lambda w: [w]),
)
# Prompts are cut from few texts, so that prefixes meet.
texts = st.sampled_from([[1] * 40, list(range(40)), [2, 3] * 20])


@st.composite
def spans(draw: st.DrawFn) -> tuple[Span, ...]:
    body = draw(texts)[: draw(st.integers(1, 28))]
    tail = draw(st.lists(st.integers(0, VOCAB - 1), max_size=3))
    if not draw(st.booleans()):
        return (TokenSpan(tuple(body + tail)),)
    image = EmbedSpan(draw(st.integers(1, 5)), draw(st.sampled_from([b"a" * 16, b"b" * 16])), filler_id=1)
    return (TokenSpan(tuple(body)), image, TokenSpan((*tail, 4)))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    prompt = draw(spans())
    prompt_len, n = sum(span.num_tokens for span in prompt), draw(st.integers(1, 4))
    params = SamplingParams(
        n=n,
        max_tokens=MAX_LEN,
        min_tokens=draw(st.sampled_from([0, 4])),
        logprobs=draw(st.sampled_from([None, 1])),
        prompt_logprobs=draw(st.sampled_from([None, None, 1])),
        skip_reading_prefix_cache=draw(st.sampled_from([None, None, True])),
    )
    return Request(
        request_id="",
        spans=prompt,
        sampling=params,
        seeds=tuple(draw(st.lists(st.integers(0, 2**60), min_size=n, max_size=n, unique=True))),
        max_len=min(prompt_len + draw(st.integers(1, 14)), MAX_LEN),
        stop_ids=draw(st.sampled_from([frozenset(), frozenset({3, 17, 31})])),
        priority=draw(st.integers(0, 2)),
        tenant=draw(st.sampled_from(["x", "y"])),
        cache_salt=draw(st.sampled_from(["", "", "s"])),
        features=draw(st.sampled_from([{}, {}, {"adapter_id": 5}])),
    )


class EngineMachine(RuleBasedStateMachine):
    """Requests come and go; after every step the books are right, and at the end every token is."""

    world: World

    @initialize(
        layers=kinds,
        block_size=st.sampled_from([1, 2, 4]),
        spare=st.integers(0, 60),
        num_seqs=st.integers(1, 5),
        budget=st.integers(0, 24),
        policy=st.sampled_from(["fcfs", "priority", "fair"]),
        caching=st.booleans(),
        cap=st.sampled_from([0, 0, 3]),
        run_ahead=st.integers(0, 2),
        k=st.integers(1, 4),
        lazy=st.booleans(),
        zero_rate=st.sampled_from([0.0, 0.0, 0.3]),
        seed=st.integers(0, 1000),
    )
    def start(
        self,
        layers: list[KVKind],
        block_size: int,
        spare: int,
        num_seqs: int,
        budget: int,
        policy: str,
        caching: bool,
        cap: int,
        run_ahead: int,
        k: int,
        lazy: bool,
        zero_rate: float,
        seed: int,
    ) -> None:
        kv = make_kv_plan(layers, "float32", num_blocks=2, block_size=block_size)
        kv = KVPlan(kv.groups, 1 + blocks_needed(kv, MAX_LEN, k) + spare, kv.num_slabs, kv.block_bytes, kv.dtype)
        limits = SchedulerPlan(
            num_seqs, num_seqs + budget, MAX_LEN, policy, caching, True, cap, run_ahead=run_ahead, max_tokens_per_step=k
        )
        self.world = World(kv, limits, seed, lazy, zero_rate)
        self.count = 0

    @rule(request=requests())
    def add(self, request: Request) -> None:
        self.count += 1
        renamed = Request(**{**_fields(request), "request_id": f"r{self.count}", "arrival": float(self.count)})
        self.world.add(renamed)

    @rule(times=st.integers(1, 8))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.world.step()

    @precondition(lambda self: self.count > 0)
    @rule(which=st.integers(0, 100), index=st.sampled_from([None, 0, 1]))
    def abort(self, which: int, index: int | None) -> None:
        self.world.engine.abort(f"r{1 + which % self.count}", index)
        self.world.engine.check()

    @rule()
    def reset_prefix_cache(self) -> None:
        self.world.engine.reset_prefix_cache()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


def _fields(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in Request.__dataclass_fields__}


EngineMachine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestEngineMachine = EngineMachine.TestCase
