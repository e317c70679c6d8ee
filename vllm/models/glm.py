"""GLM-4 of 2024: half of each head is turned, in neighbouring pairs; biases on q, k and v."""

from vllm.parts.checkpoint import FUSED_GATE_UP, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm, rope
from vllm.parts.tiny import tiny

NAMES = ("GlmForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    rms, turn = norm(c), rope(c, part=0.5, interleaved=True)
    attention = gqa(c, rope=turn, qkv_bias=c.get("attention_bias", True))
    return decoder(c, lambda i: Block(attention, mlp(c), rms, rms), rms)


WEIGHTS = hf_weights(*FUSED_GATE_UP)
TINY = tiny("glm", pad_token_id=0)
VARIANTS = ({"attention_bias": False, "partial_rotary_factor": 1.0, "tie_word_embeddings": True},)
