"""Descriptions of well-known configurations have exactly the published number of parameters."""

from importlib import import_module

import pytest

from tools.house.source import ROOT
from vllm.parts.hf import HFConfig
from vllm.parts.tensors import num_parameters
from vllm.planning.describe import describe

MODELS = [path for path in (ROOT / "vllm" / "models").glob("*.py") if path.stem != "__init__"]
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

OTHERS = [
    (
        "Mistral-7B-v0.1",
        "mistral",
        {**shape(32, 4096, 32, 14336), "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32000},
        7_241_732_096,
    ),
    (
        "Mixtral-8x7B",
        "mixtral",
        {
            **shape(32, 4096, 32, 14336),
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 32000,
            "num_local_experts": 8,
        },
        46_702_792_704,
    ),
    (
        "Qwen2.5-0.5B",
        "qwen2",
        {**shape(24, 896, 14, 4864), "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
        494_032_768,
    ),
    (
        "Qwen2.5-7B",
        "qwen2",
        {**shape(28, 3584, 28, 18944), "num_key_value_heads": 4, "vocab_size": 152064},
        7_615_616_512,
    ),
    (
        "Qwen3-30B-A3B",
        "qwen3_moe",
        {
            **shape(48, 2048, 32, 6144),
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        30_532_122_624,
    ),
    (
        "gemma-2-2b",
        "gemma2",
        {**shape(26, 2304, 8, 9216), "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000},
        2_614_341_888,
    ),
    (
        "gemma-2-9b",
        "gemma2",
        {**shape(42, 3584, 16, 14336), "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000},
        9_241_705_984,
    ),
    (
        "gemma-3-1b",
        "gemma3",
        {
            **shape(26, 1152, 4, 6912),
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 262144,
            "layer_types": None,
        },
        999_885_952,
    ),
    (
        "Phi-3-mini",
        "phi3",
        {**shape(32, 3072, 32, 8192), "num_key_value_heads": 32, "vocab_size": 32064},
        3_821_079_552,
    ),
    ("phi-4", "phi3", {**shape(40, 5120, 40, 17920), "num_key_value_heads": 10, "vocab_size": 100352}, 14_659_507_200),
    (
        "Phi-4-mini",
        "phi3",
        {**shape(32, 3072, 24, 8192), "num_key_value_heads": 8, "vocab_size": 200064, "tie_word_embeddings": True},
        3_836_021_760,
    ),
    (
        "OLMo-1B",
        "olmo",
        {
            **shape(16, 2048, 16, 8192),
            "num_key_value_heads": 16,
            "vocab_size": 50304,
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
        1_176_764_416,
    ),
    (
        "OLMo-2-1124-7B",
        "olmo2",
        {**shape(32, 4096, 32, 11008), "num_key_value_heads": 32, "vocab_size": 100352, "attention_bias": False},
        7_298_617_344,
    ),
    (
        "SmolLM3-3B",
        "smollm3",
        {
            **shape(36, 2048, 16, 11008),
            "num_key_value_heads": 4,
            "vocab_size": 128256,
            "attention_bias": False,
            "mlp_bias": False,
        },
        3_075_098_624,
    ),
    ("starcoder2-3b", "starcoder2", {**shape(30, 3072, 24, 12288), "vocab_size": 49152}, 3_030_371_328),
    (
        "GLM-4-9B-0414",
        "glm4",
        {**shape(40, 4096, 32, 13696), "head_dim": 128, "vocab_size": 151552, "attention_bias": True},
        9_400_279_040,
    ),
    (
        "glm-4-9b-chat-hf",
        "glm",
        {**shape(40, 4096, 32, 13696), "head_dim": 128, "vocab_size": 151552, "attention_bias": True},
        9_399_951_360,
    ),
    (
        "gpt2",
        "gpt2",
        {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
        124_439_808,
    ),
    (
        "gpt2-xl",
        "gpt2",
        {"n_layer": 48, "n_embd": 1600, "n_head": 25, "n_positions": 1024, "vocab_size": 50257},
        1_557_611_200,
    ),
    ("pythia-70m", "gpt_neox", {**shape(6, 512, 8, 2048), "vocab_size": 50304}, 70_426_624),
    ("pythia-6.9b", "gpt_neox", {**shape(32, 4096, 32, 16384), "vocab_size": 50432}, 6_857_302_016),
    ("gpt-neox-20b", "gpt_neox", {**shape(44, 6144, 64, 24576), "vocab_size": 50432}, 20_554_567_680),
    (
        "granite-3.1-8b",
        "granite",
        {
            **shape(40, 4096, 32, 12800),
            "num_key_value_heads": 8,
            "vocab_size": 49155,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
        },
        8_170_848_256,
    ),
]


@pytest.mark.parametrize(("name", "config", "count"), PUBLISHED, ids=[p[0] for p in PUBLISHED])
def test_count_equals_published(name: str, config: dict, count: int) -> None:
    assert num_parameters(describe(HFConfig(config)).decoder) == count


@pytest.mark.parametrize(("name", "model", "changes", "count"), OTHERS, ids=[p[0] for p in OTHERS])
def test_count_of_other_families(name: str, model: str, changes: dict, count: int) -> None:
    """The shape of the published model on top of what our TINY says about everything else."""
    module = import_module(f"vllm.models.{model}")
    defaults = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "num_experts_per_tok": 2, "activation_function": "gelu_new"}
    config = {**defaults, **module.TINY, **changes}
    config = {key: value for key, value in config.items() if value is not None}
    assert num_parameters(module.describe(HFConfig(config))) == count


def test_every_described_architecture_is_counted() -> None:
    """A published total for each file of vllm/models; what TINY and its variants count, tests/contract compares."""
    of_published = {config["architectures"][0] for _, config, _ in PUBLISHED}
    counted = {name for _, name, _, _ in OTHERS}
    for name, module in ((path.stem, import_module(f"vllm.models.{path.stem}")) for path in MODELS):
        assert name in counted or of_published & set(module.NAMES), f"vllm/models/{name}.py: no published total here"
