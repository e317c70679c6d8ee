"""Granite 3: Llama with multipliers on embeddings, residuals, attention scores and logits."""

from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm
from vllm.parts.tiny import tiny

NAMES = ("GraniteForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    bias = c.get("attention_bias", False)
    attention = gqa(c, scale=c.get("attention_multiplier", 1.0), qkv_bias=bias, out_bias=bias)
    ffn, scale = mlp(c, bias=c.get("mlp_bias", False)), c.get("residual_multiplier", 1.0)
    embed = Embedding(c.vocab_size, c.hidden_size, scale=c.get("embedding_multiplier", 1.0))
    head = Head(c.get("tie_word_embeddings", False), multiplier=1 / c.get("logits_scaling", 1.0))
    return decoder(
        c, lambda i: Block(attention, ffn, norm(c), norm(c), residual_scale=scale), norm(c), embed=embed, head=head
    )


WEIGHTS = hf_weights()
TINY = tiny(
    "granite",
    head_dim=None,
    attention_bias=True,
    mlp_bias=True,
    attention_multiplier=0.2,
    residual_multiplier=0.4,
    embedding_multiplier=3.0,
    logits_scaling=1.7,
)
VARIANTS = ({"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True},)
