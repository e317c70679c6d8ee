"""The two towers together: random schedules over a real worker with a tiny network, against each request alone.

The fingerprint executor proves the host; this proves that a worker reads the plans as the host means them: forks and
their copies, rows that change hands, windows, prefix hits, preemptions, plans made one step ahead.
"""

import random
from dataclasses import replace

import pytest
import torch

from tests.unit.worker.helpers import make_worker_plan, random_weights, tiny_llama
from vllm.engine.core import Engine
from vllm.executor.local import LocalExecutor
from vllm.kv.groups import blocks_needed, make_kv_plan
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.request import Request, TokenSpan
from vllm.sampling_params import SamplingParams
from vllm.worker.make import make_runner

MAX_LEN, VOCAB = 48, 97
Tokens = dict[tuple[str, int], list[int]]


def engine(window: int | None, kv: KVPlan, limits: SchedulerPlan) -> Engine:
    decoder = tiny_llama(layers=4, window=window)
    worker = make_worker_plan(
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=MAX_LEN,
        deterministic=True,
    )
    runner = make_runner(decoder, random_weights(decoder), worker, kv)
    return Engine(limits, kv, LocalExecutor.of(runner))


def requests(r: random.Random) -> list[Request]:
    made = []
    for i in range(14):
        body = r.choice([[5] * 30, list(range(30))])[: r.randint(1, 26)]
        ids = tuple(body + [r.randrange(VOCAB) for _ in range(r.randint(0, 3))])
        n = r.choice([1, 1, 2, 4])
        params = SamplingParams(
            n=n,
            temperature=1.0 if n > 1 else r.choice([0.0, 1.0]),
            repetition_penalty=r.choice([1.0, 1.3]),
            min_tokens=r.choice([0, 3]),
            prompt_logprobs=r.choice([None, None, 2]),
        )
        seeds = tuple(r.randrange(1 << 60) for _ in range(n))
        max_len = min(MAX_LEN, len(ids) + r.randint(1, 15))
        stops = frozenset(r.sample(range(VOCAB), r.choice([0, 8])))
        made.append(Request(f"r{i}", (TokenSpan(ids),), params, seeds, max_len, stops, arrival=float(i)))
    return made


def run(e: Engine, asked: list[Request], every: int) -> Tokens:
    told: Tokens = {}
    waiting, step = list(asked), 0
    while waiting or e.has_work:
        if waiting and step % every == 0:
            e.add(waiting.pop(0))
        for update in e.step():
            assert update.error is None, update.error
            told.setdefault((update.request_id, update.index), []).extend(update.token_ids)
        e.check()
        step += 1
    return told


@pytest.mark.parametrize("seed", range(4))
def test_a_real_worker_gives_the_tokens_of_a_request_alone(seed: int) -> None:
    torch.manual_seed(0)
    r = random.Random(seed)
    window = r.choice([None, 6, 11])
    kinds = tiny_llama(layers=4, window=window).kv_kinds()
    kv = make_kv_plan(kinds, "float32", num_blocks=2, block_size=4, usual_len=32)
    alone = blocks_needed(kv, MAX_LEN)
    tight = replace(kv, num_blocks=alone + r.choice([1, 4, 12]))
    limits = SchedulerPlan(r.randint(2, 5), r.randint(5, 24), MAX_LEN, run_ahead=r.choice([0, 1]))
    asked = requests(r)
    crowd = engine(window, tight, limits)
    together = run(crowd, asked, every=2)
    roomy = engine(
        window, replace(kv, num_blocks=4 * alone), SchedulerPlan(1, 64, MAX_LEN, enable_prefix_caching=False)
    )
    for request in asked:
        for i in range(request.sampling.n):
            single = replace(request, sampling=replace(request.sampling, n=1), seeds=(request.seeds[i],))
            assert together[request.request_id, i] == run(roomy, [single], every=1)[request.request_id, 0]
    assert crowd.scheduler.num_preempted + crowd.kv.num_hit > 0
