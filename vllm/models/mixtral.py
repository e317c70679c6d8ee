"""Mixtral: Mistral with a mixture of experts in every layer."""

from vllm.parts.checkpoint import EXPERTS, Rule, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.ffn import MoE
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, mlp, norm, rope
from vllm.parts.tiny import tiny

NAMES = ("MixtralForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    attention = gqa(c, window=c.get("sliding_window"), rope=rope(c, theta=1e6))
    moe = MoE(c.first("num_local_experts", "num_experts"), c.num_experts_per_tok, mlp(c))
    return decoder(c, lambda i: Block(attention, moe, norm(c), norm(c)), norm(c))


WEIGHTS = hf_weights(
    Rule("layers.{i}.block_sparse_moe.gate.weight", "layers.{i}.ffn.router.weight"),
    Rule("layers.{i}.block_sparse_moe.experts.{e}.{w1|w3}.weight", "layers.{i}.ffn.experts.gate_up"),
    Rule("layers.{i}.block_sparse_moe.experts.{e}.w2.weight", "layers.{i}.ffn.experts.down"),
    *EXPERTS,
)
TINY = tiny("mixtral", num_local_experts=4, num_experts_per_tok=2)
