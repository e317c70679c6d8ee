"""A config.json in the older style describes the same network as the one that transformers 5 makes of it."""

import copy
import json
from importlib import import_module
from typing import Any

import pytest

from vllm.parts.hf import HFConfig
from vllm.parts.tiny import tiny

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
GEMMA3 = {"model_type": "gemma3_text", "sliding_window": 12, "query_pre_attn_scalar": 24, "num_hidden_layers": 7}
OLD: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "dynamic": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "rope_theta": 5e5}),
    "yarn": ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    "llama3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 5e5}),
    "no theta": ("llama", {}),
    "mistral without a window key": ("mistral", {}),
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "qwen2 with windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
    "qwen2 without": ("qwen2", {"use_sliding_window": False, "sliding_window": 12, "rope_theta": 1e6}),
    "gemma2": ("gemma2", {"sliding_window": 12, "query_pre_attn_scalar": 24, "num_hidden_layers": 3}),
    "gemma3 with two bases": (
        "gemma3",
        {
            **GEMMA3,
            "rope_theta": 1e6,
            "rope_local_base_freq": 5000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window_pattern": 3,
        },
    ),
    "gemma3 with one": ("gemma3", {**GEMMA3, "rope_theta": 1e6}),
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.25, "rotary_emb_base": 20000, "hidden_size": 64}),
    "glm": ("glm", {"partial_rotary_factor": 0.5, "pad_token_id": 0, "head_dim": 16}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5, "no_rope_layers": [1, 1, 1, 0, 1], "rope_theta": 5e6}),
    "starcoder2": ("starcoder2", {"sliding_window": 12, "rope_theta": 1e5}),
}


@pytest.mark.parametrize(("model", "changes"), OLD.values(), ids=list(OLD))
@pytest.mark.filterwarnings("ignore")
def test_old_and_new_style_describe_the_same(model: str, changes: dict[str, Any]) -> None:
    from transformers import AutoConfig

    changes = {"model_type": model, **changes}
    if model not in ("llama", "mistral", "gemma2", "gemma3"):
        changes = {"head_dim": None, **changes}
    kind = changes.pop("model_type")
    old = tiny(kind, **changes)
    if "sliding_window" in changes:
        old["sliding_window"] = changes["sliding_window"]
    new = json.loads(AutoConfig.for_model(**copy.deepcopy(old)).to_json_string())
    common = {key: new[key] for key in ("hidden_act", "hidden_activation", "rms_norm_eps") if key in new}
    describe = import_module(f"vllm.models.{model}").describe
    assert describe(HFConfig({**common, **old})) == describe(HFConfig(new))
