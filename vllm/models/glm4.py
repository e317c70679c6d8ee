"""GLM-4-0414 and GLM-Z1: as GLM-4 of 2024, with norms around both parts."""

from vllm.parts.checkpoint import FUSED_GATE_UP, both, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm, rope
from vllm.parts.tiny import tiny

NAMES = ("Glm4ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    rms, turn = norm(c), rope(c, part=0.5, interleaved=True)
    attention = gqa(c, rope=turn, qkv_bias=c.get("attention_bias", True))
    return decoder(c, lambda i: Block(attention, mlp(c), rms, rms, rms, rms), rms)


WEIGHTS = hf_weights(
    *FUSED_GATE_UP,
    *both("layers.{i}.post_self_attn_layernorm", "layers.{i}.post_mixer"),
    *both("layers.{i}.post_mlp_layernorm", "layers.{i}.post_ffn"),
)
TINY = tiny("glm4", pad_token_id=0)
VARIANTS = ({"attention_bias": False, "partial_rotary_factor": 1.0, "tie_word_embeddings": True},)
