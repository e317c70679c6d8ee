"""The table of `vllm plan --ops` tells the truth: it lists what a step calls, and names slow references."""

import logging
from dataclasses import replace

import pytest
import torch

from tests.unit.layers.test_sharding import KINDS, decoder_of
from tests.unit.worker.helpers import Host, make_kv_plan, make_worker_plan, random_weights, tiny_llama
from vllm.executor.local import LocalExecutor
from vllm.ops.table import Kernel, Kernels, Target, select
from vllm.worker import kernels, make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_table_lists_what_a_step_calls(kind, quantization, monkeypatch):
    decoder = decoder_of(**KINDS[kind])
    plan = make_worker_plan(kernels={}, quantization=quantization, max_num_batched_tokens=64, max_model_len=64)
    kv_plan = make_kv_plan(decoder, block_size=16)
    called = set()

    def recording(network, worker_plan, kv):
        ops = kernels.kernels_for(network, worker_plan, kv)
        return Kernels({name: _recorded(name, kernel, called) for name, kernel in ops.chosen.items()})

    monkeypatch.setattr(make, "kernels_for", recording)
    host = Host(LocalExecutor.of(make.make_runner(decoder, random_weights(decoder), plan, kv_plan)), kv_plan)
    host.open(0, [3, 4, 5])
    host.step((0, 3))
    host.step((0, 1))
    listed = kernels.used_ops(decoder, plan, kernels.kernels_for(decoder, plan, kv_plan))
    # why: a tied table is read through its linear kernel, greedy tokens are not drawn, and of the two ways to take an
    # RMS norm the wiring may need only one
    assert called <= listed and listed - called <= {"embedding", "draw", "rms_norm", "add_rms_norm"}
    table = kernels.table(decoder, plan, kv_plan)
    assert all(f"  {name} " in table for name in listed)


def _recorded(name: str, kernel: Kernel, called: set) -> Kernel:
    def run(*args, **kwargs):
        called.add(name)
        return kernel.run(*args, **kwargs)

    def wide(*args, **kwargs):
        called.add(name)
        return kernel.helpers["wide"](*args, **kwargs)

    helpers = {**kernel.helpers, "wide": wide} if "wide" in kernel.helpers else kernel.helpers
    return replace(kernel, run=run, helpers=helpers)


def test_a_slow_reference_on_a_gpu_is_a_warning(caplog, monkeypatch):
    decoder = tiny_llama()
    ops = select(Target("cpu", torch.float32), {"*": "reference"})
    gpu = make_worker_plan(device="cuda:0", kernels={})
    logging.getLogger("vllm").propagate = True
    with caplog.at_level(logging.WARNING, logger="vllm.worker.kernels"):
        kernels.warn_of_references(decoder, make_worker_plan(kernels={}), ops)
        kernels.warn_of_references(decoder, replace(gpu, kernels={"*": "reference"}), ops)
        assert not caplog.records, "not on a CPU, nor where the user asked for it"
        kernels.warn_of_references(decoder, gpu, ops)
    (record,) = caplog.records
    assert "attention" in record.getMessage() and "embedding" not in record.getMessage()


def test_a_library_call_is_no_missed_kernel():
    ops = select(Target("cpu", torch.float32), {"*": "reference"})
    assert ops.missed(["linear", "embedding", "experts", "attention"]) == ["attention", "experts"]
