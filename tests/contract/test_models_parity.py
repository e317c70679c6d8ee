"""Every description computes what transformers computes: float32, tiny weights, no parameter neutral.

`test_logits`: the forward pass alone, in chunks. `test_tokens`: the whole engine, greedy, with ragged batches,
chunks, preemption and prefix hits. `test_every_parameter_matters`: the suite would notice a bias or norm that is lost.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.models import expected_logits, reference, save, tiny_configs
from tests.unit.worker.helpers import make_host
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.assembly import make_plan
from vllm.config.args import EngineArgs
from vllm.kv.groups import blocks_needed
from vllm.loading.loader import load_weights
from vllm.parts.decoder import Decoder
from vllm.planning.describe import describe, read_config
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import LoadPlan, WorkerPlan

CONFIGS = tiny_configs()
EACH = pytest.mark.parametrize("config", [c for _, c in CONFIGS], ids=[name for name, _ in CONFIGS])
MAX_LEN = 128
LENGTH = 100
"""Beyond the 64 positions after which the long rotary embeddings of TINY configurations differ from the short."""
STEPS = 64


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, 128, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def load(folder: Path) -> tuple[Decoder, dict[str, torch.Tensor]]:
    described = describe(read_config(folder))
    plan = WorkerPlan("cpu", "float32", 1, 128, MAX_LEN)
    return described.decoder, load_weights(described.decoder, described.weights, LoadPlan(str(folder)), plan)


class Tap:
    """Stands before a model and keeps the logits of every position. `near`: how far states asked for alone may be."""

    def __init__(self, model: Any, near: float = 1e-4) -> None:
        self.model, self.near, self.seen = model, near, []

    def __call__(
        self, batch: Any, hidden: torch.Tensor | None = None, only: torch.Tensor | None = None
    ) -> torch.Tensor:
        hidden = self.model(batch, hidden)
        self.seen.append(self.model.logits(hidden).clone())
        some: torch.Tensor = hidden if only is None else self.model(batch, only=only)
        if only is not None:
            assert (some - hidden[only]).abs().max() <= self.near * hidden.abs().max(), "states asked for alone differ"
        return some

    def logits(self, hidden: torch.Tensor, wide: bool = True) -> torch.Tensor:
        return self.model.logits(hidden, wide)


def our_logits(
    decoder: Decoder, weights: dict[str, torch.Tensor], tokens: list[int], chunks: tuple[int, ...] = ()
) -> torch.Tensor:
    """Logits of every position, the tokens given in `chunks`."""
    host = make_host(decoder, weights=weights, block_size=8, max_model_len=MAX_LEN)
    runner = host.executor.runner
    runner.model = tap = Tap(runner.model)
    host.open(0, tokens)
    for n in chunks or (len(tokens),):
        host.step((0, n))
    return torch.cat(tap.seen)


@EACH
def test_logits(config: dict, tmp_path: Path) -> None:
    model, tokens = reference(config), prompt_of(LENGTH)
    save(model, tmp_path)
    ours = our_logits(*load(tmp_path), tokens, (41, 1, 30, 28))
    theirs = expected_logits(model, tokens)
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@EACH
def test_tokens(config: dict, tmp_path: Path) -> None:
    model = reference(config)
    save(model, tmp_path)
    prompts = [prompt_of(n, seed=n) for n in (40, 1, 9, 33, 57)]
    greedy = SamplingParams(temperature=0, max_tokens=STEPS, ignore_eos=True)
    given = {
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "max_model_len": MAX_LEN,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 24,
        "block_size": 8,
    }
    kv = make_plan(EngineArgs(model=str(tmp_path), num_gpu_blocks_override=100, **given))[2].kv
    # why: one sequence of the longest length and half of another: four at once must take turns
    tight = blocks_needed(replace(kv, num_blocks=2), MAX_LEN, 24) * 3 // 2
    with LLM(str(tmp_path), num_gpu_blocks_override=tight, **given) as llm:
        outputs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], greedy, use_tqdm=False)
        # why: with windows alone a decode holds fewer blocks than the prefill before it, so nobody has to give way
        full = any(isinstance(group.kind, FullKV) for group in kv.groups)
        assert not full or llm.llm_engine.assembled.engine.scheduler.num_preempted > 0
        # the longest prompt again, and a new end behind its beginning
        again = [prompts[4], prompts[4][:48] + prompt_of(9, seed=99)]
        later = llm.generate([TokensPrompt(prompt_token_ids=p) for p in again], greedy, use_tqdm=False)
        assert any((out.num_cached_tokens or 0) > 0 for out in later)
    for prompt, out in zip(prompts + again, outputs + later, strict=True):
        check_greedy(model, prompt, list(out.outputs[0].token_ids))


def check_greedy(model: Any, prompt: list[int], tokens: list[int]) -> None:
    """Every token is the most likely one after those before it (which is what a greedy run of transformers gives)."""
    assert len(tokens) == STEPS
    logits = expected_logits(model, prompt + tokens)[len(prompt) - 1 : -1]
    assert tokens == logits.argmax(-1).tolist()


@EACH
def test_every_parameter_matters(config: dict, tmp_path: Path) -> None:
    """Without a kind of bias, or with a kind of norm left neutral, other tokens come out."""
    save(reference(config), tmp_path)
    decoder, weights = load(tmp_path)
    tokens = prompt_of(LENGTH)
    usual = our_logits(decoder, weights, tokens).argmax(-1)
    plus_one = any(b.pre_mixer is not None and b.pre_mixer.plus_one for b in decoder.blocks)
    kinds = {name.rpartition("layers.")[2].lstrip("0123456789") for name, w in weights.items() if w.dim() == 1}
    for kind in sorted(kinds):
        neutral = 0.0 if kind.endswith("bias") or plus_one else 1.0
        changed = {n: torch.full_like(w, neutral) if n.endswith(kind) else w for n, w in weights.items()}
        assert not torch.equal(our_logits(decoder, changed, tokens).argmax(-1), usual), f"{kind} changes nothing"
