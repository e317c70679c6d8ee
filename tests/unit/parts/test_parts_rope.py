"""Rotary frequencies equal transformers' for every kind of scaling."""

import pytest
import torch

from vllm.errors import ModelLoadError
from vllm.parts.hf import HFConfig
from vllm.parts.reading import max_positions, rope
from vllm.parts.rope import frequencies

KINDS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn_mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 1024,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
        "beta_fast": 16,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)],
        "original_max_position_embeddings": 1024,
    },
}


def config(scaling: dict) -> dict:
    return {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
        "rope_theta": 50000.0,
        "rope_scaling": dict(scaling),
    }


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("max_len", [1000, 4096, 8192])
def test_frequencies_equal_transformers(kind: str, max_len: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theirs = LlamaConfig(**config(KINDS[kind]))
    mine, factor = frequencies(rope(HFConfig(config(KINDS[kind]))), max_len)
    if kind == "default":
        expected, their_factor = torch.tensor([50000.0 ** (-i / 16) for i in range(0, 16, 2)]), 1.0
    else:
        expected, their_factor = ROPE_INIT_FUNCTIONS[theirs.rope_parameters["rope_type"]](
            theirs, "cpu", seq_len=max_len
        )
    torch.testing.assert_close(torch.tensor(mine), expected, rtol=1e-5, atol=0)
    assert factor == pytest.approx(their_factor, rel=1e-6)


def test_both_spellings_read_the_same() -> None:
    old = rope(HFConfig(config(KINDS["yarn"])))
    c = config(KINDS["yarn"])
    new = {**c.pop("rope_scaling"), "rope_theta": c.pop("rope_theta")}
    assert rope(HFConfig({**c, "rope_parameters": new})) == old


def test_longest_sequence() -> None:
    def limit(scaling: dict) -> int:
        return max_positions(HFConfig(config(scaling)))

    assert limit(KINDS["default"]) == limit(KINDS["llama3"]) == limit(KINDS["longrope"]) == 4096
    assert limit(KINDS["linear"]) == 16384
    assert limit(KINDS["dynamic"]) == 8192
    assert limit(KINDS["yarn"]) == 4096
    assert limit({"type": "yarn", "factor": 4.0}) == 16384


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ModelLoadError, match="'spiral'"):
        rope(HFConfig(config({"rope_type": "spiral"})))
