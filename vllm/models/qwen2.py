"""Qwen2 and Qwen2.5: Llama with biases on q, k and v."""

from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm, window
from vllm.parts.tiny import tiny

NAMES = ("Qwen2ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""

    def block(i: int) -> Block:
        slides = window(c, i, lambda i: i >= c.get("max_window_layers", 28)) if c.get("use_sliding_window") else None
        return Block(gqa(c, qkv_bias=True, window=slides), mlp(c), norm(c), norm(c))

    return decoder(c, block, norm(c))


WEIGHTS = hf_weights()
TINY = tiny("qwen2", head_dim=None)
VARIANTS = ({"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1, "tie_word_embeddings": True},)
