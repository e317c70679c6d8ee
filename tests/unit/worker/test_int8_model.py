"""quantization="int8" through a whole model: close to the weights it came from, and blind to the rest of the batch."""

import torch

from tests.unit.worker.helpers import make_kv_plan, make_worker_plan, random_weights, tiny_llama
from vllm.executor.local import LocalExecutor
from vllm.ops.batch import Batch, GroupBatch
from vllm.parts.tensors import tensors
from vllm.planning.memory import weight_bytes
from vllm.worker.make import make_runner


def _hidden(quantization: str, prompts: list[list[int]]) -> torch.Tensor:
    decoder = tiny_llama()
    plan = make_kv_plan(decoder)
    weights = random_weights(decoder, std=0.1)
    executor = LocalExecutor.of(make_runner(decoder, weights, make_worker_plan(quantization=quantization), plan))
    lens, size = [len(p) for p in prompts], plan.groups[0].block_size
    starts = torch.tensor([0, *torch.tensor(lens).cumsum(0)], dtype=torch.int32)
    positions = torch.cat([torch.arange(n) for n in lens])
    table = torch.arange(1, 1 + 4 * len(lens), dtype=torch.int32).view(len(lens), 4)
    slots = torch.cat(
        [table[s, torch.arange(n) // size].long() * size + torch.arange(n) % size for s, n in enumerate(lens)]
    )
    group = GroupBatch(slots, table, size)
    ids = torch.tensor([t for p in prompts for t in p])
    seq_lens = torch.tensor(lens, dtype=torch.int32)
    batch = Batch(ids, positions, starts, seq_lens, [group], sum(lens), len(lens), max(lens), max(lens), lens, lens)
    model = executor.runner.model
    with torch.inference_mode():
        return model.logits(model(batch))


def test_logits_stay_near_those_of_the_full_weights():
    prompts = [[5, 17, 30, 2], [9, 8]]
    full, small = _hidden("none", prompts), _hidden("int8", prompts)
    assert not torch.equal(full, small), "nothing was quantized"
    assert (full - small).norm() / full.norm() < 0.03
    assert torch.cosine_similarity(full, small).min() > 0.999


def test_a_sequence_does_not_feel_its_neighbours():
    prompts = [[5, 17, 30, 2], [9, 8], [60]]
    together = _hidden("int8", prompts)
    alone = _hidden("int8", [[9, 8]])
    # why: heads this small run the reference attention, whose last bit may move one int8 step; the op itself is exact
    assert (together[4:6] - alone).norm() < 5e-3 * alone.norm()


def test_the_planner_counts_what_is_packed():
    decoder = tiny_llama()
    linears = [s for s in tensors(decoder) if ".mixer." in s.name or ".ffn." in s.name]
    saved = weight_bytes(decoder, "bfloat16", 1, 1) - weight_bytes(decoder, "bfloat16", 1, 1, "int8")
    assert saved == sum(s.numel - 8 * s.shape[0] for s in linears)
