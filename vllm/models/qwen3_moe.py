"""Qwen3 MoE: grouped queries with an RMS norm on each query and key head; routed experts in most layers."""

from vllm.parts.basic import Norm
from vllm.parts.checkpoint import EXPERTS, hf_weights
from vllm.parts.decoder import Block, Decoder
from vllm.parts.ffn import MoE
from vllm.parts.hf import HFConfig
from vllm.parts.reading import decoder, gqa, head_dim, mlp, norm
from vllm.parts.tiny import tiny

NAMES = ("Qwen3MoeForCausalLM",)


def describe(c: HFConfig) -> Decoder:
    """The network that config.json says."""
    qk, bias = Norm(head_dim(c), c.rms_norm_eps), c.get("attention_bias", False)
    slides = c.get("sliding_window") if c.get("use_sliding_window") else None
    attention = gqa(c, qk_norm=(qk, qk), qkv_bias=bias, out_bias=bias, window=slides)
    expert = mlp(c, inter=c.moe_intermediate_size)
    moe = MoE(
        c.first("num_experts", "num_local_experts"),
        c.num_experts_per_tok,
        expert,
        renormalize=c.get("norm_topk_prob", False),
    )
    step, dense = c.get("decoder_sparse_step", 1), c.get("mlp_only_layers", [])

    def block(i: int) -> Block:
        routed = i not in dense and (i + 1) % step == 0
        return Block(attention, moe if routed else mlp(c), norm(c), norm(c))

    return decoder(c, block, norm(c))


WEIGHTS = hf_weights(*EXPERTS)
TINY = tiny("qwen3_moe", moe_intermediate_size=24, num_experts=6, num_experts_per_tok=3, norm_topk_prob=True)
VARIANTS = ({"num_hidden_layers": 3, "mlp_only_layers": [0], "decoder_sparse_step": 2, "norm_topk_prob": False},)
