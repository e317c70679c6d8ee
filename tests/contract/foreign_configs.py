"""Tiny configurations of architectures that we do not describe, one per oddity that the fallback must carry."""

from typing import Any

_BASE = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LOCAL = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
_ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}


def _of(model_type: str, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    out = {**_BASE, "model_type": model_type}
    for part in (*parts, more):
        out.update(part)
    return out


FOREIGN: dict[str, dict[str, Any]] = {
    "apertus": _of("apertus"),
    "arcee": _of("arcee"),
    "bitnet": _of("bitnet"),
    "cohere": _of("cohere", logit_scale=0.5, use_qk_norm=True),
    "cohere2": _of("cohere2", _LOCAL),
    "deepseek_v2": _of("deepseek_v2", _LATENT, _ROUTED, n_group=2, topk_group=1),
    "deepseek_v3": _of("deepseek_v3", _LATENT, _ROUTED, n_group=2, topk_group=1),
    "dots1": _of("dots1", _ROUTED, n_group=1, topk_group=1, layer_types=["full_attention"] * 2),
    "ernie4_5": _of("ernie4_5", head_dim=12),
    "ernie4_5_moe": _of(
        "ernie4_5_moe",
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=32,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
    ),
    "exaone4": _of("exaone4", _LOCAL),
    "gemma": _of("gemma", head_dim=16),
    "gemma3n": _of(
        "gemma3n_text",
        num_hidden_layers=4,
        head_dim=16,
        intermediate_size=[64] * 4,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=7,
        vocab_size_per_layer_input=131,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * 4,
        tie_word_embeddings=False,
        pad_token_id=0,
    ),
    "gemma4": _of(
        "gemma4_text",
        num_hidden_layers=4,
        head_dim=16,
        global_head_dim=32,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=7,
        num_kv_shared_layers=2,
        vocab_size_per_layer_input=131,
        hidden_size_per_layer_input=8,
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=32,
        pad_token_id=0,
        tie_word_embeddings=False,
    ),
    "glm4_moe": _of("glm4_moe", _ROUTED, head_dim=16, n_group=1, topk_group=1, use_qk_norm=True, attention_bias=True),
    "gpt_bigcode": _of("gpt_bigcode", n_embd=48, n_layer=2, n_head=4, n_positions=256, multi_query=True),
    "gpt_oss": _of("gpt_oss", _LOCAL, head_dim=16, num_local_experts=4, num_experts_per_tok=2),
    "granitemoe": _of("granitemoe", num_local_experts=4, num_experts_per_tok=2),
    "helium": _of("helium", head_dim=12),
    "hunyuan_v1_moe": _of("hunyuan_v1_moe", head_dim=12, num_experts=4, moe_topk=2),
    "longcat_flash": _of(
        "longcat_flash",
        _LATENT,
        num_layers=2,
        ffn_hidden_size=64,
        expert_ffn_hidden_size=32,
        n_routed_experts=4,
        moe_topk=2,
        zero_expert_num=2,
        head_dim=8,
    ),
    "minicpm3": _of("minicpm3", _LATENT, tie_word_embeddings=False),
    "nemotron": _of("nemotron"),
    "olmo3": _of("olmo3", _LOCAL),
    "olmoe": _of("olmoe", num_experts=4, num_experts_per_tok=2),
    "persimmon": _of("persimmon", num_key_value_heads=4),
    "phi": _of("phi", partial_rotary_factor=0.5),
    "phimoe": _of("phimoe", num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": _of(
        "qwen2_moe",
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=40,
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=1,
    ),
    "seed_oss": _of("seed_oss", head_dim=16, attention_bias=True),
    "vaultgemma": _of("vaultgemma", _LOCAL, head_dim=16, attn_logit_softcapping=5.0, final_logit_softcapping=9.0),
}
