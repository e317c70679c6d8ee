"""Phi-3 and Phi-4: Llama with fused q, k, v and gate, up; often a partial or long rotary embedding."""

from vllm.parts.checkpoint import FUSED_GATE_UP, Rule, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm
from vllm.parts.tiny import tiny

NAMES = ("Phi3ForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    attention = gqa(c, window=c.get("sliding_window"))
    return decoder(c, lambda i: Block(attention, mlp(c), norm(c), norm(c)), norm(c))


WEIGHTS = hf_weights(
    Rule("layers.{i}.self_attn.qkv_proj.weight", "layers.{i}.mixer.qkv.weight"),
    *FUSED_GATE_UP,
)
TINY = tiny(
    "phi3",
    head_dim=None,
    hidden_size=64,
    pad_token_id=0,
    original_max_position_embeddings=64,
    partial_rotary_factor=0.75,
    rope_scaling={
        "type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        "long_factor": [1.5, 2.0, 3.0, 4.0, 6.0, 8.0],
    },
)
VARIANTS = ({"sliding_window": 12, "rope_scaling": None, "partial_rotary_factor": 1.0, "tie_word_embeddings": True},)
