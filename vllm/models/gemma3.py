"""Gemma 3, text: norms around both parts and on query and key heads; five sliding layers, then one that sees all."""

from vllm.errors import ModelLoadError
from vllm.parts.basic import Norm, Rope
from vllm.parts.checkpoint import SANDWICH, hf_weights
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, head_dim, mlp, norm, rope, window
from vllm.parts.tiny import tiny

NAMES = ("Gemma3ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    if c.get("use_bidirectional_attention"):
        raise ModelLoadError("this Gemma 3 sees tokens to come (use_bidirectional_attention): it cannot generate")
    rms, qk = norm(c, plus_one=True), Norm(head_dim(c), c.rms_norm_eps, plus_one=True)
    bias, every = c.get("attention_bias", False), c.get("sliding_window_pattern", 6)

    def block(i: int) -> Block:
        slides = window(c, i, lambda i: (i + 1) % every != 0)
        attention = gqa(
            c,
            scale=c.query_pre_attn_scalar**-0.5,
            rope=local_rope(c) if slides else rope(c, kind="full_attention", theta=1e6),
            qkv_bias=bias,
            out_bias=bias,
            qk_norm=(qk, qk),
            window=slides,
        )
        return Block(attention, mlp(c, act="hidden_activation"), rms, rms, rms, rms)

    embed = Embedding(c.vocab_size, c.hidden_size, scale=c.hidden_size**0.5)
    head = Head(c.get("tie_word_embeddings", True), softcap=c.get("final_logit_softcapping"))
    return decoder(c, block, rms, embed=embed, head=head)


def local_rope(c: HFConfig) -> Rope:
    """The embedding of sliding layers: a base of its own, and not stretched in configs of the older style."""
    if c.get("rope_parameters"):
        return rope(c, kind="sliding_attention")
    return Rope(head_dim(c), c.get("rope_local_base_freq", 10000.0))


WEIGHTS = hf_weights(*SANDWICH)
TINY = tiny(
    "gemma3_text",
    num_hidden_layers=3,
    sliding_window=12,
    query_pre_attn_scalar=24,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
)
VARIANTS = ({"final_logit_softcapping": 3.0, "attention_bias": True},)
