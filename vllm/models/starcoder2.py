"""StarCoder2: layer norms, biases everywhere, a plain MLP with GELU, sliding window."""

from vllm.parts.checkpoint import both, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, layer_norm, mlp
from vllm.parts.tiny import tiny

NAMES = ("Starcoder2ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    bias, ln = c.get("use_bias", True), layer_norm(c, c.get("norm_epsilon", 1e-5))
    attention = gqa(c, qkv_bias=bias, out_bias=bias, window=c.get("sliding_window"))
    return decoder(c, lambda i: Block(attention, mlp(c, gated=False, bias=bias), ln, ln), ln, tied=True)


WEIGHTS = hf_weights(
    *both("layers.{i}.mlp.c_fc", "layers.{i}.ffn.up"),
    *both("layers.{i}.mlp.c_proj", "layers.{i}.ffn.down"),
)
TINY = tiny("starcoder2", head_dim=None, sliding_window=12)
VARIANTS = ({"use_bias": False, "sliding_window": None, "tie_word_embeddings": False},)
