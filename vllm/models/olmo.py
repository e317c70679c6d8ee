"""OLMo 1: Llama with layer norms that have no parameters; q, k and v may be clipped."""

from vllm.parts.basic import Norm
from vllm.parts.checkpoint import hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp
from vllm.parts.tiny import tiny

NAMES = ("OlmoForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    plain, bias = Norm(c.hidden_size, 1e-5, kind="layer", affine=False), c.get("attention_bias", False)
    attention = gqa(c, qkv_bias=bias, out_bias=bias, clip=c.get("clip_qkv"))
    return decoder(c, lambda i: Block(attention, mlp(c), plain, plain), plain)


WEIGHTS = hf_weights()
TINY = tiny("olmo", head_dim=None, clip_qkv=0.6, attention_bias=True)
VARIANTS = ({"clip_qkv": None, "attention_bias": False, "tie_word_embeddings": True},)
