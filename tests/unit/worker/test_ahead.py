"""Steps given ahead of their results, with rows on the device, give the tokens of steps that are waited for.

On a GPU the steps are graphs; elsewhere a "graph" is the same function run again, so that buckets, idle lines and
changes are tried all the same.
"""

import random
from dataclasses import replace

import pytest
import torch

from tests.unit.worker.helpers import make_kv_plan, make_worker_plan, random_weights, tiny_llama
from vllm.engine.core import Engine
from vllm.executor.local import LocalExecutor
from vllm.kv.groups import make_kv_plan as plan_groups
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention, Heads
from vllm.platforms.base import platform_of
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.protocol.step import RowOpen, StepPlan
from vllm.sampling_params import SamplingParams
from vllm.worker.ahead import AheadRunner
from vllm.worker.graphs import End
from vllm.worker.make import make_runner
from vllm.worker.runner import Runner

pytestmark = pytest.mark.gpu_too
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
KERNELS = {} if torch.cuda.is_available() else {"*": "reference"}


def odd_decoder(moe: bool) -> Decoder:
    """Windows, soft caps, norms of queries and keys, a scaled embedding; perhaps experts."""
    hidden, qk = 64, Norm(16)

    def block(i: int) -> Block:
        mixer = Attention(
            hidden, Heads(4, 2, 16), 0.25, Rope(16), qk_norm=(qk, qk), window=None if i else 20, softcap=20.0
        )
        return Block(mixer, MoE(6, 2, MLP(hidden, 32)) if moe else MLP(hidden, 96), Norm(hidden), Norm(hidden))

    embed = Embedding(97, hidden, scale=8.0)
    return Decoder(hidden, (block(0), block(1)), embed, Head(False, softcap=15.0), Norm(hidden), 512)


DECODERS = {
    "plain": tiny_llama(),
    "windows": tiny_llama(window=9),
    "odd": odd_decoder(False),
    "experts": odd_decoder(True),
}


def on_device(weights: dict) -> dict:
    return {name: x.to(DEVICE) for name, x in weights.items()}


def make_engine(
    name: str, num_blocks: int, budget: int, rows: int, ahead: bool, record: bool = True, **changes
) -> Engine:
    decoder = DECODERS[name]
    kv_plan = plan_groups(decoder.kv_kinds(), "float32", num_blocks=num_blocks, block_size=16)
    worker = make_worker_plan(
        max_num_seqs=rows, max_num_batched_tokens=budget, device=DEVICE, kernels=KERNELS, enforce_eager=not record,
        **changes,
    )  # fmt: skip
    runner = make_runner(decoder, on_device(random_weights(decoder)), worker, kv_plan)
    if ahead:
        runner = AheadRunner(runner.model, runner.slabs, runner.sampler._ops, worker, kv_plan, record=record)
        runner._together = 3  # why: a device's 256 lines would be all of these small steps
    else:
        runner = Runner(runner.model, runner.slabs, runner.sampler._ops, worker, kv_plan)
    return Engine(SchedulerPlan(rows, budget, 128, run_ahead=int(ahead)), kv_plan, LocalExecutor.of(runner))


def requests_of(seed: int, plain: bool) -> list[Request]:
    """`plain`: only what the device samples by itself."""
    dice, out = random.Random(seed), []
    shared = [dice.randrange(97) for _ in range(40)]
    for i in range(dice.randint(8, 14)):
        prompt = shared[: dice.randrange(40)] + [dice.randrange(97) for _ in range(dice.randint(1, 12))]
        n, fancy = dice.choice((1, 1, 1, 2, 3)), not plain and dice.random() < 0.5
        most = dice.randint(1, 40)
        params = SamplingParams(
            n=n,
            temperature=0.0 if n == 1 and dice.random() < 0.4 else 1.0,
            min_tokens=dice.choice((0, most // 2)),
            top_p=0.9 if fancy else 1.0,
            top_k=dice.choice((0, 5)) if fancy else 0,
            min_p=dice.choice((0.0, 0.02)) if fancy else 0.0,
            frequency_penalty=0.5 if fancy and dice.random() < 0.5 else 0.0,
            repetition_penalty=1.2 if fancy and dice.random() < 0.5 else 1.0,
            logit_bias={7: 2.0, 11: -1.5} if fancy and dice.random() < 0.3 else None,
            allowed_token_ids=list(range(5, 60)) if fancy and dice.random() < 0.3 else None,
            logits_processors=[lambda ids, logits: logits] if fancy and dice.random() < 0.1 else None,
            max_tokens=most,
            logprobs=1 if fancy and dice.random() < 0.5 else None,
            prompt_logprobs=0 if fancy and dice.random() < 0.3 else None,
        )
        seeds = tuple(dice.getrandbits(64) for _ in range(n))
        stop = frozenset(dice.sample(range(97), 3))
        out.append(Request(f"r{i}", (TokenSpan(tuple(prompt)),), params, seeds, len(prompt) + most, stop))
    return out


def run(
    engine: Engine, requests: list[Request], aborts: dict[str, int] | None = None, said: dict | None = None
) -> dict:
    """Tokens by (request, index). `aborts`: request -> tokens after which it is given up. `said`: logprobs."""
    out, waiting, aborts = {}, list(requests), dict(aborts or {})
    while waiting or engine.has_work:
        for request in waiting[:2]:
            engine.add(request)
        waiting = waiting[2:]
        for update in engine.step():
            assert update.error is None, update.error
            tokens = out.setdefault((update.request_id, update.index), [])
            tokens.extend(update.token_ids)
            if said is not None and update.logprobs:
                said.setdefault((update.request_id, update.index), []).extend(one.ids for one in update.logprobs)
            if len(tokens) >= aborts.get(update.request_id, 1 << 30):
                engine.abort(update.request_id)
                del aborts[update.request_id]
    return out


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "any"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_tokens_are_those_of_a_runner_that_waits(name, plain, seed):
    requests = requests_of(seed, plain)
    want = run(make_engine(name, 400, 512, 16, ahead=False), requests)
    dice = random.Random(seed)
    for record in (True, False):
        engine = make_engine(name, 9 + record, dice.choice((8, 24, 64)), 6, True, record)
        assert run(engine, requests) == want
        assert engine.scheduler.num_preempted > 0 and (engine.kv.num_hit > 0 or name != "plain")
        decodes = engine._executor.runner._decodes
        ends = {end for _, end in decodes._graphs}
        second = ends & {End.THEN_PICK, End.THEN_PICK_ANY}
        whole = set() if not record else {End.PICK} if plain else {End.PICK, End.PICK_ANY, End.LOGITS}
        assert ends - second == whole, "steps of every kind were recorded"
        assert bool(second) == (decodes.has_second and not plain), "and the choice behind logits"


@pytest.mark.parametrize("name", ["plain", "odd"])
def test_the_host_chooses_for_those_alone_that_need_it(name):
    """In deterministic mode, beside others that the device serves; tokens and log-probabilities find their way back."""
    requests = requests_of(3, False)
    for i, request in enumerate(requests):
        if i % 3 == 0:
            request.sampling.logits_processors = [lambda ids, logits: logits]
        if i % 2 == 0:
            request.sampling.logprobs = i % 4
    theirs, ours = {}, {}
    want = run(make_engine(name, 400, 512, 16, ahead=False), requests, said=theirs)
    engine = make_engine(name, 30, 64, 6, True, deterministic=True)
    assert run(engine, requests, said=ours) == want
    assert any(end is End.LOGITS for _, end in engine._executor.runner._decodes._graphs), "the choice was left out"
    assert ours == theirs and len({len(one) for lines in ours.values() for one in lines}) > 1


def test_aborts_leave_the_others_alone():
    requests = requests_of(5, True)
    want = run(make_engine("plain", 400, 512, 16, ahead=False), requests)
    aborts = {"r1": 1, "r3": 4, "r6": 2}
    got = run(make_engine("plain", 20, 24, 5, ahead=True), requests, aborts)
    for key, tokens in got.items():
        assert tokens == want[key] if key[0] not in aborts else tokens == want[key][: len(tokens)]


@pytest.mark.parametrize("where", ["given", "waited for"])
def test_a_step_that_fails_ends_its_sequences_and_nobody_else(where, monkeypatch):
    requests = requests_of(3, True)
    want = run(make_engine("plain", 400, 512, 16, ahead=False), requests)
    engine = make_engine("plain", 60, 64, 6, ahead=True)
    runner = engine._executor.runner
    name = "_any_step" if where == "given" else "_land"
    whole, calls = getattr(runner, name), []

    def fails_once(*args):
        calls.append(0)
        if len(calls) == 2:
            raise RuntimeError("seeded")
        whole(*args)

    monkeypatch.setattr(runner, name, fails_once)
    failed, out = set(), {}
    for request in requests[:3]:
        engine.add(request)
    rest = requests[3:]
    while engine.has_work or rest:
        for update in engine.step():
            out.setdefault((update.request_id, update.index), []).extend(update.token_ids)
            if update.error is not None:
                assert "seeded" in update.error
                failed.add(update.request_id)
        if rest and (failed or not engine.has_work):
            engine.add(rest.pop())
    assert failed and failed < {r.request_id for r in requests}
    for key, tokens in out.items():
        assert tokens == (want[key][: len(tokens)] if key[0] in failed else want[key])


def test_a_plan_may_be_given_before_the_tokens_of_the_last_are_seen():
    decoder = DECODERS["plain"]
    kv_plan = make_kv_plan(decoder, 64, 16)
    worker = make_worker_plan(device=DEVICE, kernels=KERNELS)
    made = make_runner(decoder, on_device(random_weights(decoder)), worker, kv_plan)
    runner = AheadRunner(made.model, made.slabs, made.sampler._ops, worker, kv_plan)
    o = RowOpen(0, 100, 1, [5, 6, 7], 3, 0, [[1]], SamplingParams(temperature=0, max_tokens=9), 7, 12, frozenset())
    plans = [StepPlan(0, [0], [3], [True], opens=[o]), *(StepPlan(i, [0], [1], [True]) for i in range(1, 5))]
    for plan in plans:
        runner.submit(plan)
    ahead = [runner.collect().tokens[0][0] for _ in plans]
    waits = Runner(made.model, made.slabs, made.sampler._ops, worker, kv_plan)
    again = replace(o, epoch=2)
    assert ahead == [waits.step(replace(p, opens=[again] if p.opens else [])).tokens[0][0] for p in plans]


def test_a_run_of_decodes_sends_nothing_but_new_blocks(monkeypatch):
    """The device counts for itself: a decode step is one recorded step, and a copy where a block table grows."""
    engine = make_engine("plain", 400, 512, 16, ahead=True)
    runner, sent, steps = engine._executor.runner, [], []
    platform = type(runner._platform)
    send, submit = platform.send, runner.submit
    monkeypatch.setattr(platform, "send", lambda self, x, index: sent.append(x.numel()) or send(self, x, index))

    def noting(plan: StepPlan) -> None:
        sent.clear()
        submit(plan)
        steps.append((plan, list(sent)))

    monkeypatch.setattr(runner, "submit", noting)
    dice = random.Random(6)
    for i, length in enumerate((5, 11, 18)):
        params = SamplingParams(temperature=1.0, max_tokens=40, min_tokens=40, ignore_eos=True)
        prompt = tuple(dice.randrange(97) for _ in range(length))
        engine.add(Request(f"r{i}", (TokenSpan(prompt),), params, (i,), length + 40, frozenset({3})))
    while engine.has_work:
        engine.step()
    changed = [plan.step_id for plan, _ in steps if plan.opens or plan.closes or max(plan.num_query, default=2) > 1]
    quiet = [(plan, copies) for plan, copies in steps if plan.step_id not in (*changed, changed[0] + 1)]
    grown = [(plan, copies) for plan, copies in quiet if plan.new_blocks]
    assert len(quiet) > 30 and 0 < len(grown) < 10
    for plan, copies in quiet:
        # why 2: places and values
        wanted = [2 * sum(len(ids) for _, _, ids in plan.new_blocks)] if plan.new_blocks else []
        assert copies == wanted, f"step {plan.step_id} sent {copies} words"
    assert {end for _, end in runner._decodes._graphs} == {End.PICK}, "all of it is one recorded step"


def test_the_platform_decides():
    decoder = DECODERS["plain"]
    made = make_runner(
        decoder,
        on_device(random_weights(decoder)),
        make_worker_plan(device=DEVICE, kernels=KERNELS),
        make_kv_plan(decoder, 64, 16),
    )
    assert isinstance(made, AheadRunner) == platform_of(DEVICE).runs_behind() == (DEVICE != "cpu")


def test_log_probabilities_come_without_waiting_and_are_the_same():
    """Rows that report, rows with options and plain rows in one batch; the host samples nothing."""
    dice, requests = random.Random(4), []
    for i, more in enumerate(
        (dict(logprobs=3), dict(), dict(logprobs=0, top_p=0.8), dict(logprobs=5, frequency_penalty=1.0))
    ):
        params = SamplingParams(temperature=0.0 if i == 0 else 1.0, max_tokens=12, **more)
        prompt = tuple(dice.randrange(97) for _ in range(6))
        requests.append(Request(f"r{i}", (TokenSpan(prompt),), params, (i,), 18, frozenset()))
    said = []
    for ahead in (False, True):
        engine, out = make_engine("plain", 60, 64, 8, ahead), {}
        if ahead:
            engine._executor.runner.sampler.sample = None
        for request in requests:
            engine.add(request)
        while engine.has_work:
            for update in engine.step():
                assert update.error is None, update.error
                out.setdefault(update.request_id, []).extend(
                    zip(update.token_ids, update.logprobs or [None] * 12, strict=False)
                )
        said.append(out)
    for name, pairs in said[0].items():
        assert len(pairs) == 12
        for (token, want), (same, got) in zip(pairs, said[1][name], strict=True):
            assert token == same and (want is None) == (got is None) == (name == "r1")
            if want is not None:
                assert want.ids == got.ids and want.ranks == got.ranks
                assert max(abs(a - b) for a, b in zip(want.values, got.values, strict=True)) < 1e-4


@pytest.mark.parametrize("name", ["plain", "windows"])
def test_what_is_made_ready_while_nobody_waits_changes_no_token(name):
    """Sizes of steps are recorded between two rounds of the same requests; cached prefixes are not written to."""
    requests = requests_of(5, True)
    want = run(make_engine(name, 400, 512, 16, ahead=False), requests)
    engine = make_engine(name, 400, 64, 6, ahead=True)
    assert engine.prepare(), "before the first request"
    assert run(engine, requests) == want
    rounds = 0
    while engine.prepare():
        rounds += 1
    runner = engine._executor.runner
    recorded = len(runner._decodes._graphs), len(runner._mixed._made)
    assert rounds > 0 and len(runner._decodes.buckets) <= recorded[0] and len(runner._mixed.sizes) == recorded[1]
    hits = engine.kv.num_hit
    assert run(engine, requests) == want and engine.kv.num_hit > hits
    assert (len(runner._decodes._graphs), len(runner._mixed._made)) == recorded, "nothing was left to record"
    assert not engine.prepare()
