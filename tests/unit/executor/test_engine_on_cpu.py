"""The whole engine over a real model: whatever the scheduler does, a request's tokens are those it gets alone."""

import random

import pytest

from tests.unit.worker.helpers import make_worker_plan, random_weights, tiny_llama
from vllm.engine.core import Engine
from vllm.executor.local import LocalExecutor
from vllm.kv.groups import make_kv_plan
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.sampling_params import SamplingParams
from vllm.worker.make import make_runner

DECODER = tiny_llama(window=9)
WEIGHTS = random_weights(DECODER)


def _engine(num_blocks, budget, rows, run_ahead):
    kv_plan = make_kv_plan(DECODER.kv_kinds(), "float32", num_blocks=num_blocks, block_size=4)
    worker = make_worker_plan(max_num_seqs=rows, max_num_batched_tokens=budget)
    executor = LocalExecutor.of(make_runner(DECODER, dict(WEIGHTS), worker, kv_plan))
    return Engine(SchedulerPlan(rows, budget, 128, run_ahead=run_ahead), kv_plan, executor)


def _requests(seed):
    dice = random.Random(seed)
    shared = [dice.randrange(97) for _ in range(30)]
    for i in range(dice.randint(6, 14)):
        prompt = shared[: dice.randrange(30)] + [dice.randrange(97) for _ in range(dice.randint(1, 12))]
        n = dice.choice((1, 1, 1, 2, 3))
        params = SamplingParams(
            n=n,
            temperature=0.0 if n == 1 and dice.random() < 0.4 else 1.0,
            top_p=dice.choice((1.0, 0.9)),
            frequency_penalty=dice.choice((0.0, 0.0, 0.5)),
            max_tokens=dice.randint(1, 25),
            logprobs=dice.choice((None, 1)),
        )
        seeds = tuple(dice.getrandbits(64) for _ in range(n))
        stop = frozenset(dice.sample(range(97), 2))
        yield Request(f"r{i}", (TokenSpan(tuple(prompt)),), params, seeds, len(prompt) + params.max_tokens, stop)


def _run(engine, requests):
    out, waiting = {}, list(requests)
    while waiting or engine.has_work:
        for request in waiting[:2]:
            engine.add(request)
        waiting = waiting[2:]
        for update in engine.step():
            assert update.error is None, update.error
            key = update.request_id, update.index
            out.setdefault(key, []).extend(update.token_ids)
            if update.logprobs:
                assert [one.ids[0] for one in update.logprobs] == update.token_ids
    return out


@pytest.mark.parametrize("seed", range(6))
def test_tokens_do_not_depend_on_company_blocks_or_run_ahead(seed):
    requests = list(_requests(seed))
    roomy = _engine(400, 512, 16, 0)
    alone = {}
    for request in requests:
        alone |= _run(roomy, [request])
    dice = random.Random(seed + 1000)
    for run_ahead in (0, 1):
        engine = _engine(dice.randint(60, 90), dice.choice((8, 24, 64)), dice.choice((3, 6)), run_ahead)
        assert _run(engine, requests) == alone
