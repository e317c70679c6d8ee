"""What the suites over all models share: every TINY and VARIANT, and a transformers model of it saved to a folder."""

import contextlib
import io
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vllm.planning.describe import MODELS

SEED = 7

ORACLE = {"dtype": torch.float32, "attn_implementation": "eager"}
"""Eager: transformers 5.17's sdpa forgets the soft cap of Gemma 2."""


def tiny_configs() -> list[tuple[str, dict[str, Any]]]:
    """(id, config) of every TINY and of TINY with each VARIANT."""
    result = []
    for path in MODELS.modules():
        module = import_module(path)
        name = path.rpartition(".")[2]
        result.append((name, deepcopy(module.TINY)))
        for k, changes in enumerate(getattr(module, "VARIANTS", ())):
            result.append((f"{name}-{k + 1}", deepcopy({**module.TINY, **changes})))
    return result


def reference(config: dict[str, Any]) -> Any:
    """transformers' model in float32, every parameter random: biases far from zero, norms far from one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(SEED)
    # why: transformers writes into the dictionaries it is given
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**deepcopy(config)), **ORACLE).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.uniform_(-0.35, 0.35)
    return model


def save(model: Any, folder: Path) -> None:
    """save_pretrained without its progress bar."""
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)


def expected_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    """transformers' logits [tokens, vocabulary] of one sequence."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0]
