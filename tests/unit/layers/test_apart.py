"""Experts whose results a token's next norm adds: the network gives what it gives with the sum by itself.

On a GPU with the kernels in bfloat16; elsewhere with a plain kernel that really leaves results apart, and out of order.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.unit.layers import test_folded
from tests.unit.layers.test_folded import HAS_GPU, run
from vllm.ops.activation import activate_mul
from vllm.ops.moe import Apart, choose
from vllm.ops.table import Kernels
from vllm.parts.basic import Norm, Rope
from vllm.parts.decoder import Block, Decoder, Embedding, Head, Wiring
from vllm.parts.ffn import MLP, MoE
from vllm.parts.mixer import Attention, Heads
from vllm.worker.kernels import choose_kernels

pytestmark = pytest.mark.gpu_too
HIDDEN = 64


def network(*blocks: dict[str, object]) -> Decoder:
    """A network of experts whose blocks differ from the usual as these say."""

    def block(shared: MLP | None = None, **kind: object) -> Block:
        ffn = MoE(4, 2, MLP(HIDDEN, 32), shared=shared)
        norms = {"pre_mixer": Norm(HIDDEN), "pre_ffn": Norm(HIDDEN)}
        return Block(Attention(HIDDEN, Heads(4, 2, 16), 0.25, Rope(16)), ffn, **{**norms, **kind})  # type: ignore[arg-type]

    return Decoder(
        HIDDEN, tuple(block(**kind) for kind in blocks), Embedding(97, HIDDEN), Head(True), Norm(HIDDEN), 512
    )


def in_parts(x, packed, top_k, renormalize, up, down, act):
    """`moe_apart` pair by pair, the last pair's result first."""
    weights, ids = choose(x, packed, top_k, renormalize)
    rows = x.repeat_interleave(top_k, 0)
    pairs = [F.linear(activate_mul(F.linear(r, up[e]), act), down[e]) for r, e in zip(rows, ids.flatten(), strict=True)]
    return Apart(torch.stack(pairs[::-1]), weights, torch.arange(len(pairs) - 1, -1, -1, dtype=torch.int32))


BEHIND = {"pre_mixer": None, "pre_ffn": None, "post_mixer": Norm(HIDDEN), "post_ffn": Norm(HIDDEN)}
CASES = {
    "serial": (({}, {}, {}), [True, True, True]),
    "one that visits all": (({}, {"shared": MLP(HIDDEN, 16)}, {}), [True, False, True]),
    "scaled": (({"residual_scale": 0.5}, {}), [False, True]),
    "norms behind": (({"post_ffn": Norm(HIDDEN)}, {}), [False, True]),
    "post": (({**BEHIND, "wiring": Wiring.POST},) * 2, [False, False]),
    "parallel": (({"pre_ffn": None, "wiring": Wiring.PARALLEL},) * 2, [False, False]),
    "before a layer norm": (({}, {"pre_mixer": Norm(HIDDEN, kind="layer")}), [False, True]),
}


@pytest.mark.parametrize("name", CASES)
def test_results_left_to_the_next_norm(name, monkeypatch):
    blocks, wanted = CASES[name]

    def kernels(plan, parts):
        chosen = dict(choose_kernels(plan).chosen)
        if not HAS_GPU and parts:
            chosen["experts"] = replace(chosen["experts"], name="apart")
            chosen["moe_apart"] = replace(chosen["moe_apart"], name="apart", run=in_parts)
        elif not parts:
            chosen["moe_apart"] = replace(chosen["moe_apart"], name="reference")
        chosen["fold"] = replace(chosen["fold"], helpers={**chosen["fold"].helpers, "most": lambda maps: 0})
        return Kernels(chosen)

    monkeypatch.setattr(test_folded, "kernels_for", kernels)
    dtype = "bfloat16" if HAS_GPU else "float32"
    plain, want = run(network(*blocks), False, dtype)
    model, got = run(network(*blocks), True, dtype)
    assert [b.ffn.parts for b in plain._blocks] == [False] * len(blocks)
    assert [b.ffn.parts for b in model._blocks] == wanted
    error = (got - want).abs().max() / want.abs().max()
    assert error <= (0.03 if HAS_GPU else 1e-5), f"{error:.2e}"
