"""kv_cache_dtype="fp8": half the bytes, keys and values as e4m3 or e5m2 times a scale, near the full cache."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.contract.fp8_folders import LAYOUTS, write
from tests.contract.models import reference
from tests.contract.test_fp8_checkpoints import TINY, load
from tests.contract.test_models_parity import Tap, prompt_of
from tests.unit.worker.helpers import Host, make_kv_plan, make_worker_plan, random_weights, tiny_llama
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.config.args import EngineArgs
from vllm.errors import ModelLoadError, RefusedError
from vllm.executor.local import LocalExecutor
from vllm.ops.attention import AttentionShape, layout, raw, stored, write_kv
from vllm.ops.batch import GroupBatch
from vllm.planning.resolve import resolve
from vllm.protocol.facts import DeviceFacts
from vllm.worker.make import make_runner

SMALL = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
PROMPT = list(range(1, 40))


def host_with(dtype: str, std: float = 0.2, **changes) -> tuple[Host, Tap]:
    decoder = tiny_llama()
    plan = make_kv_plan(decoder, itemsize=4)
    if dtype != "float32":
        plan = replace(plan, dtype=dtype, block_bytes=plan.block_bytes // 4)
    runner = make_runner(decoder, random_weights(decoder, std=std), make_worker_plan(**changes), plan)
    runner.model = tap = Tap(runner.model)
    return Host(LocalExecutor.of(runner), plan), tap


def logits(dtype: str, chunks: tuple[int, ...] = (20, 1, 18), **changes) -> torch.Tensor:
    host, tap = host_with(dtype, **changes)
    host.open(0, PROMPT)
    for n in chunks:
        host.step((0, n))
    return torch.cat(tap.seen)


@pytest.mark.parametrize(("dtype", "most"), [("float8_e4m3fn", 0.04), ("float8_e5m2", 0.08)])
@pytest.mark.parametrize("kernels", [{}, {"*": "reference"}], ids=["best", "reference"])
def test_answers_stay_near_those_of_a_full_cache(dtype, most, kernels):
    full, small = logits("float32", kernels=kernels), logits(dtype, kernels=kernels)
    assert 1e-4 < (full - small).norm() / full.norm() < most


def test_a_deterministic_cache_is_blind_to_chunks():
    given = {"kernels": {}, "deterministic": True}
    assert torch.equal(logits("float8_e4m3fn", **given), logits("float8_e4m3fn", (1, 30, 8), **given))


@pytest.mark.parametrize("name", SMALL)
def test_what_is_kept(name):
    dtype, shape = SMALL[name], AttentionShape(4, 2, 8, 8, 1.0, k_scale=0.5, v_scale=0.25)
    cache = layout(torch.zeros(3, 2 * 4 * 16, dtype=torch.uint8), dtype, 4, shape)
    group = GroupBatch(torch.tensor([4, 9]), torch.zeros(1, 1, dtype=torch.int32), 4)
    k, v = torch.randn(2, 2, 8) * 30, torch.randn(2, 2, 8) * 30
    k[0, 0, 0] = 1e9
    write_kv(k, v, cache, group, shape)
    assert torch.equal(raw(cache.k)[1, :, :, 0], raw(stored(k[0], dtype, 0.5)))
    assert torch.equal(raw(cache.v)[2, :, 1], raw(stored(v[1], dtype, 0.25)))
    most, step = torch.finfo(dtype).max, torch.finfo(dtype).eps / 2
    assert float(cache.k[1, 0, 0, 0].float()) == most, "too large a key is held, not infinite"
    back = cache.v[2, :, 1].float() * 0.25
    assert ((back - v[1]).abs() <= step * v[1].abs() + 1e-3).all()


@pytest.mark.parametrize(
    "names", [("k_scale", "v_scale"), ("k_proj.output_scale", "v_proj.output_scale"), ("kv_scale",)], ids=str
)
def test_scales_of_the_checkpoint(names, tmp_path):
    write(reference(TINY), LAYOUTS[3], tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for layer in range(2):
        for at, name in enumerate(names):
            tensors[f"model.layers.{layer}.self_attn.{name}"] = torch.tensor([0.125 * (1 + at)])
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    _, shards, _ = load(tmp_path)
    assert float(shards["layers.1.mixer.k_scale"]) == 0.125
    assert float(shards["layers.1.mixer.v_scale"]) == 0.125 * len(names)
    for dtype in ("float32", "float8_e4m3fn"):
        decoder, shards, made = load(tmp_path)
        plan = replace(make_kv_plan(decoder, itemsize=4), dtype=dtype)
        runner = make_runner(decoder, shards, make_worker_plan(quantization=made.quantization), plan)
        scale = runner.model._blocks[1].mixer._shape.k_scale
        assert scale == (1.0 if dtype == "float32" else 0.125)
    tensors[f"model.layers.1.self_attn.{names[0]}"] = torch.tensor([0.0])
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match="one positive scale of a cache"):
        load(tmp_path)


CPU = DeviceFacts("cpu", "Test CPU", 1 << 36, 1 << 36, num_cores=4, fp8=False)
GPU = DeviceFacts("cuda", "Test GPU", 1 << 37, 1 << 37)


def test_the_plan_counts_its_bytes():
    def made(device, dim=64, **args):
        given = EngineArgs(model="m", max_model_len=64, num_gpu_blocks_override=20, **args)
        block = tiny_llama().blocks[0]
        mixer = replace(block.mixer, heads=replace(block.mixer.heads, dim=dim))
        decoder = replace(tiny_llama(), blocks=(replace(block, mixer=mixer),) * 2)
        return resolve(given, "LlamaForCausalLM", decoder, "m", "bfloat16", device)

    full, small = made(GPU), made(GPU, kv_cache_dtype="fp8")
    assert small.memory.kv * 2 == full.memory.kv and small.kv.dtype == "float8_e4m3fn"
    assert made(CPU, kv_cache_dtype="fp8_e5m2").kv.dtype == "float8_e5m2"
    assert any("slow" in why for knob, _, why in made(CPU, kv_cache_dtype="fp8").choices if knob == "kv_cache_dtype")
    with pytest.raises(RefusedError, match="Test GPU has none"):
        made(replace(GPU, fp8=False), kv_cache_dtype="fp8")
    with pytest.raises(RefusedError, match="at least 64 a head"):
        made(GPU, dim=32, kv_cache_dtype="fp8")
    with pytest.raises(RefusedError, match="'float16' is not supported with dtype bfloat16"):
        made(GPU, kv_cache_dtype="float16")


def test_the_engine_fills_and_reuses_it(tmp_path):
    from tests.contract.models import save

    model = reference(TINY)
    save(model, tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    given = {"dtype": "float32", "skip_tokenizer_init": True, "max_model_len": 64, "kv_cache_dtype": "fp8_e4m3"}
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    with LLM(str(tmp_path), block_size=8, num_gpu_blocks_override=60, **given) as llm:
        prompts = [TokensPrompt(prompt_token_ids=prompt_of(n, seed=n)) for n in (30, 9, 30)]
        first = llm.generate(prompts, greedy, use_tqdm=False)
        again = llm.generate(prompts[:1], greedy, use_tqdm=False)
    assert first[0].outputs[0].token_ids == first[2].outputs[0].token_ids == again[0].outputs[0].token_ids
    assert again[0].num_cached_tokens > 0
