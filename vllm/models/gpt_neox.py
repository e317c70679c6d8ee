"""GPT-NeoX and Pythia: layer norms, biases, a quarter of each head turned; attention and MLP side by side."""

from vllm.parts.checkpoint import Rule, Weights, both
from vllm.parts.decoder import Block, Decoder, Wiring
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, layer_norm, mlp, rope
from vllm.parts.tiny import tiny

NAMES = ("GPTNeoXForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    ln, bias = layer_norm(c, c.get("layer_norm_eps", 1e-5)), c.get("attention_bias", True)
    turn = rope(c, theta=c.get("rotary_emb_base", 10000), part=c.get("rotary_pct", 0.25))
    attention, ffn = gqa(c, rope=turn, qkv_bias=bias, out_bias=bias), mlp(c, gated=False, bias=True)
    wiring = Wiring.PARALLEL if c.get("use_parallel_residual", True) else Wiring.SERIAL
    return decoder(c, lambda i: Block(attention, ffn, ln, ln, wiring=wiring), ln)


WEIGHTS = Weights(
    rules=(
        Rule("embed_in.weight", "embed.weight"),
        *both("embed_out", "head"),
        *both("final_layer_norm", "norm"),
        *both("layers.{i}.input_layernorm", "layers.{i}.pre_mixer"),
        *both("layers.{i}.post_attention_layernorm", "layers.{i}.pre_ffn"),
        *both("layers.{i}.attention.query_key_value", "layers.{i}.mixer.qkv", "heads_qkv"),
        *both("layers.{i}.attention.dense", "layers.{i}.mixer.o"),
        *both("layers.{i}.mlp.dense_h_to_4h", "layers.{i}.ffn.up"),
        *both("layers.{i}.mlp.dense_4h_to_h", "layers.{i}.ffn.down"),
    ),
    prefixes=("gpt_neox.", ""),
    ignore=(
        "layers.{i}.attention.bias",
        "layers.{i}.attention.masked_bias",
        "layers.{i}.attention.rotary_emb.inv_freq",
    ),
)
TINY = tiny("gpt_neox", hidden_size=64, head_dim=None, num_key_value_heads=None)
VARIANTS = ({"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 0.5, "tie_word_embeddings": True},)
