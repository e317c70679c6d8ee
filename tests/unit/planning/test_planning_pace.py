"""Step costs of the Plan: guesses of the right size, and a target only where somebody reads along."""

from typing import Any

import pytest

from vllm.config.args import EngineArgs
from vllm.parts.hf import HFConfig
from vllm.planning.describe import describe
from vllm.planning.pace import active_parameters
from vllm.planning.plan import Plan
from vllm.planning.resolve import resolve
from vllm.protocol.facts import DeviceFacts
from vllm.scheduler.budget import StepBudget

GIB = 1 << 30
CPU = DeviceFacts(
    "cpu", "two cores", 16 * GIB, 12 * GIB, num_cores=2, flags=frozenset({"avx2", "avx512f", "avx512_bf16"})
)
H200 = DeviceFacts("cuda", "NVIDIA H200", 140 * GIB, 139 * GIB)
BASIC = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 40960}
LLAMA_8B = {
    **BASIC,
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
QWEN_06B = {
    **BASIC,
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 28,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN_30B = {
    **QWEN_06B,
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}


def plan(device: DeviceFacts, config: dict[str, Any], *, is_watched: bool) -> Plan:
    network = describe(HFConfig(config)).decoder
    args = EngineArgs(model="m", max_model_len=4096)
    return resolve(args, "X", network, "/m", "bfloat16", device, is_watched=is_watched)


@pytest.mark.parametrize(
    ("device", "config", "base", "each"),
    [
        (CPU, QWEN_06B, (0.02, 0.06), (5e-3, 2e-2)),  # measured: 0.05 and 0.0027
        (H200, LLAMA_8B, (3.5e-3, 6e-3), (5e-5, 2e-4)),  # measured: 0.0046 and 2.4e-5
    ],
)
def test_guesses_are_on_the_careful_side(
    device: DeviceFacts, config: dict[str, Any], base: tuple[float, float], each: tuple[float, float]
) -> None:
    made = plan(device, config, is_watched=True).scheduler
    assert base[0] < made.step_base_seconds < base[1]
    assert each[0] < made.step_token_seconds < each[1]
    budget = StepBudget(made)
    assert 15 <= budget.tokens(1, 1) <= 400, "a long prompt beside one stream comes in pieces"
    assert budget.tokens(0, 1) == made.max_num_batched_tokens


def test_offline_has_no_target() -> None:
    made = plan(CPU, QWEN_06B, is_watched=False)
    assert made.scheduler.step_seconds == 0.0
    assert StepBudget(made.scheduler).tokens(8, 1) == made.scheduler.max_num_batched_tokens
    assert "step time" not in dict((knob, value) for knob, value, _ in made.choices)
    watched = plan(CPU, QWEN_06B, is_watched=True)
    assert ("step time", "250 ms") in [(knob, value) for knob, value, _ in watched.choices]


def test_a_token_meets_the_experts_that_are_chosen() -> None:
    active = active_parameters(describe(HFConfig(QWEN_30B)).decoder)
    assert 2.9e9 < active < 3.2e9, "Qwen3-30B-A3B: 3.3e9 with the token table, which nothing is multiplied with"
