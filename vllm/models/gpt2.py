"""GPT-2: layer norms, biases everywhere, learned positions; linear weights are stored [in, out]."""

from vllm.errors import ModelLoadError
from vllm.parts.checkpoint import Rule, Weights, both
from vllm.parts.decoder import Block, Decoder, Embedding
from vllm.parts.ffn import MLP
from vllm.parts.hf import HFConfig
from vllm.parts.reading import activation, decoder, gqa, layer_norm

NAMES = ("GPT2LMHeadModel",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    c = c.aliased(
        hidden_size="n_embd",
        num_attention_heads="n_head",
        num_hidden_layers="n_layer",
        max_position_embeddings="n_positions",
    )
    if c.get("scale_attn_by_inverse_layer_idx") or c.get("add_cross_attention"):
        raise ModelLoadError("GPT-2 with scale_attn_by_inverse_layer_idx or add_cross_attention is not supported")
    ln, unscaled = layer_norm(c, c.get("layer_norm_epsilon", 1e-5)), c.get("scale_attn_weights") is False
    attention = gqa(c, rope=None, qkv_bias=True, out_bias=True, **({"scale": 1.0} if unscaled else {}))
    inter, act = c.get("n_inner", 4 * c.hidden_size), activation(c, "activation_function")
    block = Block(attention, MLP(c.hidden_size, inter, act, gated=False, bias=True), ln, ln)
    embed = Embedding(c.vocab_size, c.hidden_size, positions=c.max_position_embeddings)
    return decoder(c, lambda i: block, ln, tied=True, embed=embed)


WEIGHTS = Weights(
    rules=(
        Rule("wte.weight", "embed.weight"),
        Rule("wpe.weight", "embed.positions"),
        Rule("lm_head.weight", "head.weight"),
        *both("ln_f", "norm"),
        *both("h.{i}.ln_1", "layers.{i}.pre_mixer"),
        *both("h.{i}.ln_2", "layers.{i}.pre_ffn"),
        *both("h.{i}.attn.c_attn", "layers.{i}.mixer.qkv", "transpose"),
        *both("h.{i}.attn.c_proj", "layers.{i}.mixer.o", "transpose"),
        *both("h.{i}.mlp.c_fc", "layers.{i}.ffn.up", "transpose"),
        *both("h.{i}.mlp.c_proj", "layers.{i}.ffn.down", "transpose"),
    ),
    prefixes=("transformer.", ""),
    ignore=("h.{i}.attn.bias", "h.{i}.attn.masked_bias"),
)
TINY = {"model_type": "gpt2", "vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
VARIANTS = ({"n_inner": 48, "tie_word_embeddings": False, "activation_function": "relu"},)
