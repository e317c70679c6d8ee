"""Gemma 2: norms around both parts, every other layer slides, soft caps on scores and logits."""

from vllm.parts.checkpoint import SANDWICH, hf_weights
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm, window
from vllm.parts.tiny import tiny

NAMES = ("Gemma2ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    rms, bias = norm(c, plus_one=True), c.get("attention_bias", False)

    def block(i: int) -> Block:
        attention = gqa(
            c,
            scale=c.query_pre_attn_scalar**-0.5,
            qkv_bias=bias,
            out_bias=bias,
            window=window(c, i, lambda i: i % 2 == 0),
            softcap=c.said("attn_logit_softcapping", 50.0),
        )
        return Block(attention, mlp(c, act="hidden_activation"), rms, rms, rms, rms)

    embed = Embedding(c.vocab_size, c.hidden_size, scale=c.hidden_size**0.5)
    head = Head(c.get("tie_word_embeddings", True), softcap=c.said("final_logit_softcapping", 30.0))
    return decoder(c, block, rms, embed=embed, head=head)


WEIGHTS = hf_weights(*SANDWICH)
TINY = tiny(
    "gemma2",
    sliding_window=12,
    query_pre_attn_scalar=24,
    final_logit_softcapping=3.0,
    attn_logit_softcapping=2.0,
)
