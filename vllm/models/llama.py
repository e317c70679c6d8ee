"""Llama 1, 2, 3, 3.1 and later, and what was published in its shape (Vicuna, SmolLM, Yi, DeepSeek-LLM, ...)."""

from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm
from vllm.parts.tiny import tiny

NAMES = ("LlamaForCausalLM", "LLaMAForCausalLM")


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    bias = c.get("attention_bias", False)
    attention, ffn = gqa(c, qkv_bias=bias, out_bias=bias), mlp(c, bias=c.get("mlp_bias", False))
    return decoder(c, lambda i: Block(attention, ffn, norm(c), norm(c)), norm(c))


WEIGHTS = hf_weights()
TINY = tiny(
    "llama",
    attention_bias=True,
    mlp_bias=True,
    rope_scaling={
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
)
VARIANTS = (
    {"attention_bias": False, "mlp_bias": False, "head_dim": None, "rope_scaling": None},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
)
