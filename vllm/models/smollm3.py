"""SmolLM3: Llama in which every fourth layer has no position embedding."""

from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm, rope, window
from vllm.parts.tiny import tiny

NAMES = ("SmolLM3ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    bias, ffn = c.get("attention_bias", False), mlp(c, bias=c.get("mlp_bias", False))
    turned = c.get("no_rope_layers") or [
        (i + 1) % c.get("no_rope_layer_interval", 4) for i in range(c.num_hidden_layers)
    ]

    def block(i: int) -> Block:
        turn = rope(c, theta=2e6) if turned[i] else None
        slides = window(c, i, lambda i: not turned[i]) if c.get("use_sliding_window") else None
        return Block(gqa(c, rope=turn, qkv_bias=bias, out_bias=bias, window=slides), ffn, norm(c), norm(c))

    return decoder(c, block, norm(c), tied=True)


WEIGHTS = hf_weights()
TINY = tiny("smollm3", head_dim=None, no_rope_layer_interval=2, pad_token_id=0, attention_bias=True, mlp_bias=True)
VARIANTS = ({"no_rope_layers": [0, 1], "use_sliding_window": True, "sliding_window": 12, "tie_word_embeddings": False},)
