"""OLMo 2: each part is normalised after it, before it joins the stream; query and key rows are normalised whole."""

from vllm.parts.basic import Norm
from vllm.parts.checkpoint import SANDWICH, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, head_dim, mlp, norm
from vllm.parts.tiny import tiny

NAMES = ("Olmo2ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    bias, heads, eps = c.get("attention_bias", False), c.num_attention_heads, c.rms_norm_eps
    rows = heads * head_dim(c), c.get("num_key_value_heads", heads) * head_dim(c)
    attention = gqa(c, qk_norm=(Norm(rows[0], eps), Norm(rows[1], eps)), qkv_bias=bias, out_bias=bias)
    return decoder(c, lambda i: Block(attention, mlp(c), post_mixer=norm(c), post_ffn=norm(c)), norm(c))


WEIGHTS = hf_weights(*SANDWICH)
TINY = tiny("olmo2", head_dim=None, attention_bias=True)
