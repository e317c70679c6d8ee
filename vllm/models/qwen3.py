"""Qwen3: grouped queries with an RMS norm on each query and key head; no biases."""

from vllm.parts.basic import Norm
from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, head_dim, mlp, norm, window
from vllm.parts.tiny import tiny

NAMES = ("Qwen3ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    qk, bias = Norm(head_dim(c), c.rms_norm_eps), c.get("attention_bias", False)

    def block(i: int) -> Block:
        slides = window(c, i, lambda i: i >= c.get("max_window_layers", 28)) if c.get("use_sliding_window") else None
        return Block(gqa(c, qk_norm=(qk, qk), qkv_bias=bias, out_bias=bias, window=slides), mlp(c), norm(c), norm(c))

    return decoder(c, block, norm(c))


WEIGHTS = hf_weights()
TINY = tiny("qwen3", tie_word_embeddings=True)
VARIANTS = ({"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1, "tie_word_embeddings": False},)
