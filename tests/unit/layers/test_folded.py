"""A decode step with norms folded into the maps around them gives what the plain step gives.

On a GPU with the kernels in bfloat16; elsewhere with the references of the fused ops, under other names.
"""

from dataclasses import replace

import pytest
import torch

from tests.unit.worker.helpers import make_kv_plan, make_worker_plan, random_weights, tiny_llama
from vllm.layers.build import Model, build, make_slabs
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.linear_fp8 import quantize_weight
from vllm.ops.table import Kernels
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention, Heads
from vllm.worker.kernels import choose_kernels

pytestmark = pytest.mark.gpu_too
HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if HAS_GPU else "cpu"
MAPS = ("linear", "fold", "folded_linear", "folded_linear_mul", "linear_fold")

FUSED = ("linear_fp8", "attention", "heads_attention", "experts", "folded_moe", *MAPS)


def normed(ffn: MLP | MoE) -> Decoder:
    """Norms of queries and keys, biases of the projections."""
    hidden, qk = 64, Norm(16)
    mixer = Attention(hidden, Heads(4, 2, 16), 0.25, Rope(16), qk_norm=(qk, qk), qkv_bias=True)
    block = Block(mixer, ffn, Norm(hidden), Norm(hidden))
    return Decoder(hidden, (block,) * 3, Embedding(97, hidden), Head(True), Norm(hidden), 512)


def wide() -> Decoder:
    """Sizes that groups of 128 columns fill, and heads of 64."""
    hidden = 256
    block = Block(Attention(hidden, Heads(4, 2, 64), 0.125, Rope(64)), MLP(hidden, 384), Norm(hidden), Norm(hidden))
    return Decoder(hidden, (block,) * 3, Embedding(97, hidden), Head(True), Norm(hidden), 512)


def in_e4m3(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of linear maps inside blocks as e4m3 and scales."""
    out = {}
    for name, weight in weights.items():
        out[name] = weight
        if name.endswith(("qkv.weight", "o.weight", "gate_up.weight", "down.weight")):
            out[name], out[f"{name}_scale"] = quantize_weight(weight)
    return out


def kernels_for(plan, folds: bool) -> Kernels:
    """The plan's kernels; elsewhere than on a GPU references that claim to be kernels where `folds`."""
    chosen = dict(choose_kernels(plan).chosen)
    if not HAS_GPU and folds:
        for name in FUSED:
            chosen[name] = replace(chosen[name], name="fused")
    helpers = {**chosen["fold"].helpers, "most": lambda maps: 8 if folds else 0}
    chosen["fold"] = replace(chosen["fold"], helpers=helpers)
    if not folds:
        chosen["heads_attention"] = replace(chosen["heads_attention"], name="reference")
    return Kernels(chosen)


def run(decoder: Decoder, folds: bool, dtype: str, form: str = "none") -> tuple[Model, torch.Tensor]:
    """Hidden states of a prompt of five tokens and of two steps of a token after it, for two sequences."""
    kv_plan = make_kv_plan(decoder, num_blocks=8, block_size=16, itemsize=4 if dtype == "float32" else 2)
    kernels = {} if HAS_GPU else {"*": "reference"}
    plan = make_worker_plan(device=DEVICE, dtype=dtype, kernels=kernels, quantization=form)
    with torch.inference_mode():
        slabs = make_slabs(kv_plan, torch.device(DEVICE))
        kind = getattr(torch, dtype)
        weights = {n: x.to(DEVICE, kind) for n, x in random_weights(decoder).items()}
        weights = in_e4m3(weights) if form == "fp8" else weights
        model = build(decoder, weights, plan, kv_plan, slabs, kernels_for(plan, folds))
        out = []
        for start, num in ((0, 5), (5, 1), (6, 1)):
            ids = torch.arange(2 * num) * 7 % 90 + start
            at = torch.cat([torch.arange(start, start + num)] * 2)
            slots = torch.cat([torch.arange(start, start + num) + 16, torch.arange(start, start + num) + 32])
            group = GroupBatch(slots.to(DEVICE), torch.tensor([[1], [2]], dtype=torch.int32, device=DEVICE), 16)
            starts = torch.tensor([0, num, 2 * num], dtype=torch.int32, device=DEVICE)
            lens = torch.full((2,), start + num, dtype=torch.int32, device=DEVICE)
            counts = 2 * num, 2, num, start + num, [num] * 2, [start + num] * 2
            batch = Batch(ids.to(DEVICE), at.to(DEVICE), starts, lens, [group], *counts)
            out.append(model(batch).float().cpu())
    return model, torch.cat(out)


@pytest.mark.parametrize("name", ["llama", "qwen3", "moe", "fp8", "fp8 heads of 16"])
def test_folded_steps_agree(name):
    experts, small = MoE(4, 2, MLP(64, 32)), name.startswith("fp8")
    decoders = {"llama": tiny_llama(), "qwen3": normed(MLP(64, 96)), "moe": normed(experts), "fp8": wide()}
    decoder, dtype = decoders.get(name) or normed(MLP(64, 96)), "bfloat16" if HAS_GPU else "float32"
    plain, want = run(decoder, False, dtype, "fp8" if small else "none")
    folded, got = run(decoder, True, dtype, "fp8" if small else "none")
    assert plain._few == 0 and folded._few == 8 and folded._small is (name == "fp8")
    if small:  # a scale per token there, one per group of columns here: neither is nearer to the true network
        exact = run(decoder, False, dtype)[1]
        errors = [float((y - exact).norm() / exact.norm()) for y in (got, want)]
        assert max(errors) <= 0.25 and errors[0] <= 1.3 * errors[1], errors
        return
    error = (got - want).abs().max() / want.abs().max()
    assert error <= (0.05 if HAS_GPU else 1e-5), f"{error:.2e}"
