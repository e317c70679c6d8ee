"""Checkpoints of networks that we do not describe: every way in, every damage named, and `LLM` over all of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.contract.foreign_configs import FOREIGN
from tests.contract.models import reference, save
from tests.unit.worker.helpers import make_kv_plan, make_worker_plan
from vllm import LLM, SamplingParams
from vllm.errors import ModelLoadError, RefusedError, UnknownArchitectureError
from vllm.layers.build import make_slabs
from vllm.loading.foreign.build import build_foreign
from vllm.loading.foreign.describe import describe_foreign
from vllm.loading.foreign.skeleton import make_skeleton
from vllm.loading.foreign.weights import fill
from vllm.models import llama
from vllm.parts.foreign import Foreign
from vllm.protocol.plan import LoadPlan, WorkerPlan
from vllm.worker.kernels import choose_kernels


def checkpoint(name: str, folder: Path) -> torch.nn.Module:
    model = reference(FOREIGN[name])
    save(model, folder)
    return model


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def load(folder: Path, dtype: torch.dtype = torch.float32, load_format: str = "auto") -> dict[str, torch.Tensor]:
    whole = make_skeleton(folder, config_of(folder), dtype, 64)
    fill(whole, LoadPlan(str(folder), load_format), dtype, torch.device("cpu"))
    return whole.state_dict()


@pytest.mark.parametrize("name", ["gpt_oss", "deepseek_v3", "gemma", "cohere", "ernie4_5_moe"])
def test_loads_what_transformers_loads(name: str, tmp_path: Path) -> None:
    theirs = checkpoint(name, tmp_path).state_dict()
    ours = load(tmp_path)
    assert set(ours) == set(theirs)
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor), key


def test_reads_bin_files(tmp_path: Path) -> None:
    theirs = checkpoint("olmoe", tmp_path).state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    assert any(".experts.3." in name for name in tensors), "the checkpoint holds experts one by one"
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    ours = load(tmp_path)
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_names_with_and_without_the_prefix(tmp_path: Path) -> None:
    theirs = checkpoint("arcee", tmp_path).state_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_dtypes(tmp_path: Path) -> None:
    checkpoint("deepseek_v3", tmp_path)
    ours = load(tmp_path, torch.bfloat16)
    kinds = {name: tensor.dtype for name, tensor in ours.items()}
    assert kinds.pop("model.layers.1.mlp.gate.e_score_correction_bias") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}


def test_dummy_weights_need_no_files_and_are_seeded(tmp_path: Path) -> None:
    checkpoint("qwen2_moe", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    first, again = load(tmp_path, load_format="dummy"), load(tmp_path, load_format="dummy")
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert tensor.count_nonzero() > 0.99 * tensor.numel()
        assert tensor.abs().max() <= (1.0 if tensor.dim() == 1 else 1e-3)


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def cut(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name][:-1].contiguous()


DAMAGES = [
    ("arcee", lambda t: t.pop("model.norm.weight"), "lacks model.norm.weight, which ArceeForCausalLM needs"),
    ("arcee", lambda t: cut(t, "model.embed_tokens.weight"), r"shape \[130, 48\]; config.json asks for \[131, 48\]"),
    ("olmoe", lambda t: t.pop("model.layers.1.mlp.experts.2.down_proj.weight"), r"asks for \[4, 48, 64\]"),
    ("olmoe", lambda t: cut(t, "model.layers.0.mlp.experts.2.up_proj.weight"), "cannot be converted"),
]


@pytest.mark.parametrize(("name", "edit", "why"), DAMAGES)
def test_names_what_is_wrong(name: str, edit: Callable, why: str, tmp_path: Path) -> None:
    checkpoint(name, tmp_path)
    change(tmp_path, edit)
    with pytest.raises(ModelLoadError, match=why) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_names_tensors_that_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint("arcee", tmp_path)
    change(tmp_path, lambda t: t.update({"spare.weight": torch.ones(2), "model.rotary_emb.inv_freq": torch.ones(2)}))
    load(tmp_path)
    assert caplog.messages == ["'spare.weight' in model.safetensors has no place in ArceeForCausalLM and is left out"]


def build(foreign: Foreign, folder: Path, **changes) -> None:
    plan: WorkerPlan = make_worker_plan(**changes)
    kv_plan = make_kv_plan(foreign, itemsize=4 if plan.dtype == "float32" else 2)
    slabs = make_slabs(kv_plan, torch.device("cpu"))
    build_foreign(foreign, LoadPlan(str(folder)), plan, kv_plan, slabs, choose_kernels(plan))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mixes", ["neighbours", "chunks"])
def test_refuses_what_keeps_state_elsewhere(
    dtype: str, mixes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that looks at the token before its own works alone and whole, and at no other time."""
    from transformers.models.arcee.modeling_arcee import ArceeMLP

    checkpoint("arcee", tmp_path)
    foreign = describe_foreign(tmp_path, config_of(tmp_path))
    build(foreign, tmp_path, dtype=dtype)
    plain = ArceeMLP.forward

    def shifted(self, x):
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)
        return plain(self, x + before)

    def averaged(self, x):
        return plain(self, x - x.mean(1, keepdim=True))

    monkeypatch.setattr(ArceeMLP, "forward", averaged if mixes == "neighbours" else shifted)
    with pytest.raises(RefusedError, match="state that is not in the paged cache"):
        build(foreign, tmp_path, dtype=dtype)


PROMPTS = [[5, 9, 22, 71, 3, 3, 50], [7, 99], [(11 * i + 3) % 131 for i in range(40)]]


def generate(folder: Path, **given) -> list[list[int]]:
    """Greedy tokens through the whole engine: chunks of 16 tokens, three sequences, room for few blocks."""
    given = {"skip_tokenizer_init": True, "dtype": "float32", "max_num_batched_tokens": 16, **given}
    with LLM(model=str(folder), max_num_seqs=4, num_gpu_blocks_override=12, **given) as llm:
        params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False)
        prompts = [{"prompt_token_ids": p} for p in PROMPTS]
        return [list(o.outputs[0].token_ids) for o in llm.generate(prompts, params, use_tqdm=False)]


@pytest.mark.parametrize("name", ["gpt_oss", "deepseek_v3"])
def test_llm_serves_what_is_not_described(name: str, tmp_path: Path) -> None:
    model = checkpoint(name, tmp_path)
    model.set_attn_implementation("eager")
    for prompt, tokens in zip(PROMPTS, generate(tmp_path), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens[:-1]]), use_cache=False).logits[0, len(prompt) - 1 :]
        assert tokens == logits.argmax(-1).tolist()


def test_llm_runs_llama_both_ways(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(reference({**llama.TINY, "vocab_size": 131, "max_position_embeddings": 256}), tmp_path)
    ours = generate(tmp_path)
    assert "fallback" not in caplog.text
    assert generate(tmp_path, model_impl="transformers") == ours == generate(tmp_path, model_impl="vllm")
    assert "LlamaForCausalLM runs through the transformers fallback" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {"tensor_parallel_size": 2},
        {"pipeline_parallel_size": 2},
        {"quantization": "int8"},
        {"deterministic": True},
    ],
    ids=lambda given: next(iter(given)),
)
def test_llm_refuses_what_the_fallback_cannot(given: dict, tmp_path: Path) -> None:
    checkpoint("arcee", tmp_path)
    with pytest.raises(RefusedError, match=f"{next(iter(given))}=.* needs an architecture that is described here"):
        generate(tmp_path, **given)


def test_llm_does_without_the_fallback_when_told(tmp_path: Path) -> None:
    checkpoint("arcee", tmp_path)
    with pytest.raises(UnknownArchitectureError, match="ArceeForCausalLM"):
        generate(tmp_path, model_impl="vllm")


@pytest.mark.parametrize("name", ["cohere2", "minicpm3"])
def test_prefix_hits_and_preemption_change_nothing(name: str, tmp_path: Path) -> None:
    checkpoint(name, tmp_path)
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": [(11 * i + 3 * k) % 131 for i in range(60 + k)]} for k in range(4)]
    given = {"skip_tokenizer_init": True, "dtype": "float32", "max_num_seqs": 4, "block_size": 16}

    def tokens_of(llm: LLM) -> list[list[int]]:
        return [list(o.outputs[0].token_ids) for o in llm.generate(prompts, params, use_tqdm=False)]

    with LLM(model=str(tmp_path), enable_prefix_caching=False, num_gpu_blocks_override=200, **given) as llm:
        expected = tokens_of(llm)
    with LLM(model=str(tmp_path), num_gpu_blocks_override=20, **given) as llm:
        assert tokens_of(llm) == expected
        assert llm.llm_engine._assembled.engine.scheduler.num_preempted > 0
    with LLM(model=str(tmp_path), num_gpu_blocks_override=200, **given) as llm:
        assert tokens_of(llm) == expected == tokens_of(llm)
        assert all(o.num_cached_tokens >= 48 for o in llm.generate(prompts, params, use_tqdm=False))
