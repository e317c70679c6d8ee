"""OPT: layer norms, biases everywhere, ReLU, learned positions from row 2 on; the 350m normalises after each part."""

from vllm.parts.basic import Norm
from vllm.parts.checkpoint import ATTENTION, Rule, Weights, both
from vllm.parts.decoder import Block, Decoder, Embedding, Wiring
from vllm.parts.ffn import MLP
from vllm.parts.hf import HFConfig
from vllm.parts.reading import activation, decoder, gqa

NAMES = ("OPTForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    bias, before = c.get("enable_bias", True), c.get("do_layer_norm_before", True)
    norm = Norm(c.hidden_size, 1e-5, kind="layer", affine=c.get("layer_norm_elementwise_affine", True), bias=True)
    attention = gqa(c, rope=None, qkv_bias=bias, out_bias=bias)
    ffn = MLP(c.hidden_size, c.ffn_dim, activation(c, "activation_function"), gated=False, bias=bias)
    block = Block(attention, ffn, norm, norm) if before else Block(attention, ffn, None, None, norm, norm, Wiring.POST)
    dim = c.get("word_embed_proj_dim", c.hidden_size)
    embed = Embedding(c.vocab_size, dim, positions=c.max_position_embeddings + 2, position_offset=2)
    last = norm if before and not c.get("_remove_final_layer_norm", False) else None
    return decoder(c, lambda i: block, last, tied=True, embed=embed)


WEIGHTS = Weights(
    rules=(
        Rule("embed_tokens.weight", "embed.weight"),
        Rule("embed_positions.weight", "embed.positions"),
        Rule("project_in.weight", "embed.proj"),
        Rule("project_out.weight", "head.proj"),
        Rule("lm_head.weight", "head.weight"),
        *both("final_layer_norm", "norm"),
        *ATTENTION,
        *both("layers.{i}.self_attn.out_proj", "layers.{i}.mixer.o"),
        *both("layers.{i}.self_attn_layer_norm", "layers.{i}.pre_mixer"),
        *both("layers.{i}.final_layer_norm", "layers.{i}.pre_ffn"),
        *both("layers.{i}.self_attn_layer_norm", "layers.{i}.post_mixer"),
        *both("layers.{i}.final_layer_norm", "layers.{i}.post_ffn"),
        *both("layers.{i}.fc1", "layers.{i}.ffn.up"),
        *both("layers.{i}.fc2", "layers.{i}.ffn.down"),
    ),
    prefixes=("model.decoder.", "decoder.", ""),
)
TINY = {
    "model_type": "opt",
    "vocab_size": 128,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
VARIANTS = (
    {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
    {"enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": False},
    {"_remove_final_layer_norm": True},
)
