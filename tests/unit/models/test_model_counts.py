"""Descriptions of well-known configurations have exactly the published number of parameters."""

import pytest

from vllm.parts.hf import HFConfig
from vllm.parts.tensors import num_parameters
from vllm.planning.describe import describe

LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5}
LLAMA_31 = {
    **LLAMA,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
}
OPT = {
    "architectures": ["OPTForCausalLM"],
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
}


def shape(layers: int, hidden: int, heads: int, inter: int) -> dict:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": inter,
        "ffn_dim": inter,
    }


PUBLISHED = [
    (
        "Llama-2-7b",
        {**LLAMA, **shape(32, 4096, 32, 11008), "vocab_size": 32000, "max_position_embeddings": 4096},
        6_738_415_616,
    ),
    ("Llama-3.1-8B", {**LLAMA_31, **shape(32, 4096, 32, 14336)}, 8_030_261_248),
    ("Llama-3.1-70B", {**LLAMA_31, **shape(80, 8192, 64, 28672)}, 70_553_706_496),
    ("Llama-3.2-1B", {**LLAMA_31, **shape(16, 2048, 32, 8192), "tie_word_embeddings": True}, 1_235_814_400),
    ("Qwen3-0.6B", {**QWEN3, **shape(28, 1024, 16, 3072), "tie_word_embeddings": True}, 596_049_920),
    ("Qwen3-8B", {**QWEN3, **shape(36, 4096, 32, 12288)}, 8_190_735_360),
    ("opt-125m", {**OPT, **shape(12, 768, 12, 3072)}, 125_239_296),
    (
        "opt-350m",
        {**OPT, **shape(24, 1024, 16, 4096), "do_layer_norm_before": False, "word_embed_proj_dim": 512},
        331_196_416,
    ),
]


@pytest.mark.parametrize(("name", "config", "count"), PUBLISHED, ids=[p[0] for p in PUBLISHED])
def test_count_equals_published(name: str, config: dict, count: int) -> None:
    assert num_parameters(describe(HFConfig(config)).decoder) == count
