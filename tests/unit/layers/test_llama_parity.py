"""A Llama built from its description against transformers' own, weights shared, float32."""

import pytest
import torch

from tests.unit.worker.helpers import make_host
from vllm.parts.basic import Norm, Rope, RopeScaling
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.ffn import MLP
from vllm.parts.mixer import Attention, Heads

transformers = pytest.importorskip("transformers")

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def _pair(scaling, tied):
    rope_parameters = {"rope_type": "default", **(scaling or {}), "rope_theta": 10000.0}
    config = transformers.LlamaConfig(
        vocab_size=101,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters=rope_parameters,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).float().eval()
    for p in theirs.parameters():
        p.data.normal_(1.0 if p.dim() == 1 else 0.0, 0.2)
    stretch = None
    if scaling:
        values = tuple((k, v) for k, v in scaling.items() if k != "rope_type")
        stretch = RopeScaling(scaling["rope_type"], values, 64)
    mixer = Attention(48, Heads(6, 2, 8), 8**-0.5, Rope(8, 10000.0, scaling=stretch))
    block = Block(mixer, MLP(48, 80), Norm(48, config.rms_norm_eps), Norm(48, config.rms_norm_eps))
    return theirs, Decoder(48, (block,) * 3, Embedding(101, 48), Head(tied), Norm(48, config.rms_norm_eps), 64)


def _ours(theirs, decoder):
    s = theirs.state_dict()
    out = {"embed.weight": s["model.embed_tokens.weight"], "norm.weight": s["model.norm.weight"]}
    if not decoder.head.tied:
        out["head.weight"] = s["lm_head.weight"]
    for i in range(len(decoder.blocks)):
        at, to = f"model.layers.{i}", f"layers.{i}"
        out[f"{to}.mixer.qkv.weight"] = torch.cat([s[f"{at}.self_attn.{x}_proj.weight"] for x in "qkv"])
        out[f"{to}.mixer.o.weight"] = s[f"{at}.self_attn.o_proj.weight"]
        out[f"{to}.ffn.gate_up.weight"] = torch.cat([s[f"{at}.mlp.{x}_proj.weight"] for x in ("gate", "up")])
        out[f"{to}.ffn.down.weight"] = s[f"{at}.mlp.down_proj.weight"]
        out[f"{to}.pre_mixer.weight"] = s[f"{at}.input_layernorm.weight"]
        out[f"{to}.pre_ffn.weight"] = s[f"{at}.post_attention_layernorm.weight"]
    return out


@pytest.mark.parametrize(("scaling", "tied"), [(None, False), (LLAMA3, True)])
def test_logits_and_greedy_tokens_equal_transformers(scaling, tied):
    theirs, decoder = _pair(scaling, tied)
    host = make_host(decoder, weights=_ours(theirs, decoder), max_model_len=64)
    prompt = [5, 9, 22, 71, 3, 3, 50, 8, 13, 21, 34, 55, 89, 1, 2, 3, 4]
    taken = []
    model = host.executor.runner.model
    logits = model.logits
    model.logits = lambda hidden: taken.append(logits(hidden).clone()) or taken[-1].clone()
    host.open(0, prompt)
    for n in (7, 6, 4):
        host.step((0, n))
    for _ in range(20):
        host.step((0, 1))
    with torch.no_grad():
        expected = theirs(torch.tensor([host.tokens(0)[:-1]])).logits[0, len(prompt) - 1 :]
    got = torch.cat(taken)
    scale = expected.abs().max()
    assert (got - expected).abs().max() <= 1e-4 * scale
    assert host.tokens(0)[len(prompt) :] == expected.argmax(-1).tolist()
