"""Decode steps that are recorded and run as one give the tokens of steps run call by call, whatever happens between."""

import importlib
import random

import pytest
import torch

pytest.importorskip("llvmlite")
from tests.unit.worker.helpers import make_worker_plan, random_weights
from tests.unit.worker.test_ahead import odd_decoder, requests_of, run
from vllm.engine.core import Engine
from vllm.executor.local import LocalExecutor
from vllm.kv.groups import make_kv_plan as plan_groups
from vllm.ops.cpu import jit
from vllm.ops.cpu.norm import rms_norm_jit
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head, Wiring
from vllm.parts.ffn import MLP
from vllm.parts.mixer import Attention, Heads
from vllm.protocol.plan import SchedulerPlan
from vllm.worker.make import make_runner
from vllm.worker.rehearsal import rehearse


def decoder(tied: bool, window: int | None = None, bias: bool = False, wiring: Wiring = Wiring.SERIAL) -> Decoder:
    hidden, norm = 64, Norm(64)

    def block(i: int) -> Block:
        rope = Rope(16) if not bias else None
        mixer = Attention(
            hidden, Heads(4, 2, 16), 0.25, rope, window=None if i else window, qkv_bias=bias, out_bias=bias
        )
        norms = (None, None, norm, norm) if wiring is Wiring.POST else (norm, norm, None, None)
        ffn = MLP(hidden, 96, bias=bias, act="gelu" if bias else "silu", gated=not bias)
        return Block(mixer, ffn, *norms, wiring=wiring)

    embed = Embedding(97, hidden, positions=130 if bias else 0)
    return Decoder(hidden, (block(0), block(1)), embed, Head(tied), None if wiring is Wiring.POST else norm, 512)


CASES = {
    "tied": (decoder(True), {}),
    "untied, two kinds of layers": (decoder(False, window=20), {}),
    "biases, learned positions": (decoder(True, bias=True), {}),
    "norms behind": (decoder(False, wiring=Wiring.POST), {}),
    "soft caps, scales, norms of heads": (odd_decoder(False), {}),
    "experts": (odd_decoder(True), {}),
    "bfloat16": (odd_decoder(False), {"dtype": "bfloat16"}),
    "int8": (decoder(False), {"quantization": "int8"}),
    "deterministic": (decoder(True), {"deterministic": True}),
}


def make_engine(name: str, num_blocks: int, budget: int, rows: int, recorded: bool) -> Engine:
    network, changes = CASES[name]
    dtype = changes.get("dtype", "float32")
    kv_plan = plan_groups(network.kv_kinds(), dtype, num_blocks=num_blocks, block_size=16)
    given = {"max_num_seqs": rows, "max_num_batched_tokens": budget, "kernels": {}, "enforce_eager": not recorded}
    worker = make_worker_plan(**given, **changes)
    weights = random_weights(network, dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    runner = make_runner(network, weights, worker, kv_plan)
    return Engine(SchedulerPlan(rows, budget, 128), kv_plan, LocalExecutor.of(runner))


def tapes_of(engine: Engine):
    return engine._executor.runner._tapes


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_those_of_direct_calls(name):
    requests = requests_of(1, plain=False)
    direct = make_engine(name, 400, 512, 16, recorded=False)
    assert tapes_of(direct) is None
    want = run(direct, requests)
    engine = make_engine(name, 10, random.Random(name).choice((8, 24)), 6, recorded=True)
    assert run(engine, requests) == want
    assert engine.scheduler.num_preempted > 0
    if name == "experts":
        assert tapes_of(engine) is None
    else:
        assert len(tapes_of(engine)._tapes) >= 2


def test_two_models_and_two_threads_do_not_disturb_each_other():
    requests = requests_of(2, plain=True)
    names = ("tied", "soft caps, scales, norms of heads")
    want = {name: run(make_engine(name, 400, 512, 16, recorded=False), requests) for name in names}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engines = {name: make_engine(name, 60, 64, 6, recorded=True) for name in names}
        got = {name: {} for name in names}
        for engine in engines.values():
            for request in requests:
                engine.add(request)
        while any(engine.has_work for engine in engines.values()):
            for name, engine in engines.items():
                for update in engine.step() if engine.has_work else ():
                    got[name].setdefault((update.request_id, update.index), []).extend(update.token_ids)
    finally:
        torch.set_num_threads(before)
    assert got == want


def test_a_model_that_looks_at_values_runs_without_tapes():
    engine = make_engine("tied", 60, 64, 6, recorded=True)
    model = engine._executor.runner.model
    embed = model._embed

    def looks(batch):
        x = embed(batch)
        return x * (2.0 if x.sum().item() > 1e9 else 1.0)

    model._embed = looks
    requests = requests_of(3, plain=True)
    assert run(engine, requests) == run(make_engine("tied", 400, 512, 16, recorded=False), requests)
    assert tapes_of(engine).most == 0 and not tapes_of(engine)._tapes


@pytest.fixture
def compiled(monkeypatch):
    """Names of kernels as they are compiled; none is there at first."""
    names, compile_ = [], jit.Kernel._compile
    for name in ("activation", "attention", "draw", "heads", "linear", "linear_int8", "norm"):
        module = importlib.import_module(f"vllm.ops.cpu.{name}")
        if hasattr(module, "_function"):
            module._function.cache_clear()
        for made in vars(module).values():
            if isinstance(made, jit.Kernel):
                monkeypatch.setattr(made, "_ready", {})
    monkeypatch.setattr(jit.Kernel, "_compile", lambda self, fixed: names.append(self.name) or compile_(self, fixed))
    return names


@pytest.mark.parametrize(
    "name",
    ["tied", "int8", *(pytest.param(n, marks=pytest.mark.slow) for n in ("untied, two kinds of layers", "bfloat16"))],
)
def test_after_a_rehearsal_nothing_is_left_to_compile(name, compiled):
    network, changes = CASES[name]
    kv_plan = plan_groups(network.kv_kinds(), changes.get("dtype", "float32"), num_blocks=64, block_size=16)
    rehearsal = rehearse(network, make_worker_plan(kernels={}, max_num_batched_tokens=64, **changes), kv_plan)
    assert rehearsal is not None
    engine = make_engine(name, num_blocks=64, budget=64, rows=4, recorded=True)
    rehearsal.join()
    before = list(compiled)
    assert "_attention" in before and "_draw" in before
    run(engine, requests_of(1, plain=False))
    assert compiled == before


def test_a_rehearsal_runs_nothing():
    x = torch.ones(4, 64)
    with jit.rehearsal():
        rms_norm_jit(x, torch.ones(64), 1e-6)
        assert jit.listener is not None
    y = rms_norm_jit(x, torch.ones(64), 1e-6)
    assert jit.listener is None and torch.allclose(y, torch.ones(4, 64))
