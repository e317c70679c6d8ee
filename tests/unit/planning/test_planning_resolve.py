"""From arguments and facts to a Plan: what is chosen, and what is refused with what would do."""

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from vllm.config.args import EngineArgs
from vllm.errors import CapacityError, ModelLoadError, RefusedError, UnknownArchitectureError, ValidationError
from vllm.parts.decoder import Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.tensors import num_parameters
from vllm.planning.describe import describe, read_config
from vllm.planning.plan import Plan
from vllm.planning.resolve import resolve
from vllm.protocol.facts import DeviceFacts

GIB = 1 << 30
CPU = DeviceFacts("cpu", "Test CPU", 16 * GIB, 12 * GIB, num_cores=4)
H200 = DeviceFacts("cuda", "NVIDIA H200", 140 * GIB, 139 * GIB, num_cores=16, count=4)
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
SMALL = {**LLAMA_8B, "num_hidden_layers": 2, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 1024}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_BATCH_INVARIANT"):
        monkeypatch.delenv(name, raising=False)


def decoder_of(config: dict[str, Any], **changes: Any) -> Decoder:
    return describe(HFConfig({**config, **changes})).decoder


def plan(device: DeviceFacts = CPU, config: dict[str, Any] = SMALL, stored: str = "bfloat16", **args: Any) -> Plan:
    args.setdefault("max_model_len", 4096)
    return resolve(EngineArgs(model="m", **args), "LlamaForCausalLM", decoder_of(config), "/m", stored, device)


def why(made: Plan, knob: str) -> str:
    return next(reason for name, _, reason in made.choices if name == knob)


@pytest.mark.parametrize(
    ("device", "stored", "asked", "took"),
    [
        (CPU, "float16", "auto", "bfloat16"),
        (CPU, "float32", "auto", "bfloat16"),
        (replace(CPU, bf16=False), "float16", "auto", "float32"),
        (replace(CPU, bf16=False), "bfloat16", "auto", "float32"),
        (CPU, "bfloat16", "float", "float32"),
        (H200, "bfloat16", "auto", "bfloat16"),
        (H200, "float16", "auto", "float16"),
        (H200, "float32", "auto", "bfloat16"),
        (replace(H200, bf16=False), "bfloat16", "auto", "float16"),
        (H200, "bfloat16", "half", "float16"),
    ],
)
def test_dtype(device: DeviceFacts, stored: str, asked: str, took: str) -> None:
    made = plan(device, stored=stored, dtype=asked)
    assert made.worker.dtype == took == made.kv.dtype
    if asked == "auto":
        assert stored in why(made, "dtype") or "float32" in why(made, "dtype")


@pytest.mark.parametrize(("bf16", "took"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("asked", ["half", "float16"])
def test_float16_on_a_cpu_is_converted_and_said(asked: str, bf16: bool, took: str) -> None:
    made = plan(replace(CPU, bf16=bf16), stored="float16", dtype=asked)
    assert made.worker.dtype == took == made.kv.dtype
    assert "float16 was asked for" in why(made, "dtype")


def test_plan_is_complete() -> None:
    made = plan()
    assert made.num_parameters == num_parameters(decoder_of(SMALL))
    assert (made.scheduler.max_num_seqs, made.scheduler.max_num_batched_tokens) == (256, 4096)
    assert made.scheduler.run_ahead == 0 and made.worker.num_threads == 4 and made.worker.device == "cpu"
    assert made.memory.weights == made.num_parameters * 2
    assert made.memory.total <= CPU.free_bytes and made.memory.kv == made.kv.total_bytes
    assert "max_num_seqs = 256" in made.text()


def test_gpu_takes_its_share() -> None:
    made = plan(H200, LLAMA_8B, max_model_len=None)
    assert made.scheduler.max_model_len == 131072 and made.scheduler.run_ahead == 1
    assert (made.scheduler.max_num_seqs, made.scheduler.max_num_batched_tokens) == (1024, 16384)
    top = int(H200.total_bytes * 0.92) - (H200.total_bytes - H200.free_bytes)
    block = made.kv.num_slabs * made.kv.block_bytes
    assert top - block < made.memory.total <= top


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(config={**SMALL, "vocab_size": 1024}).worker.num_threads == 1
    assert plan(tensor_parallel_size=2).worker.num_threads == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert plan().worker.num_threads == 3


def test_step_limits() -> None:
    assert plan(max_num_batched_tokens=64).scheduler.max_num_seqs == 64
    assert plan(max_num_seqs=8000).scheduler.max_num_batched_tokens == 8000
    with pytest.raises(ValidationError, match=r"max_num_batched_tokens must be at least max_num_seqs \(128\)"):
        plan(max_num_seqs=128, max_num_batched_tokens=64)
    with pytest.raises(ValidationError, match="enable_chunked_prefill=False"):
        plan(enable_chunked_prefill=False, max_num_batched_tokens=512)
    assert plan(enable_chunked_prefill=False, max_model_len=8192).scheduler.max_num_batched_tokens == 8192


def test_context_beyond_the_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 131072"):
        plan(max_model_len=131073)


def test_learned_positions_bound_the_context() -> None:
    opt = import_module("vllm.models.opt")
    decoder = opt.describe(HFConfig({**opt.TINY, "activation_function": "relu"}))
    made = resolve(EngineArgs(model="m", max_model_len=-1), "OPTForCausalLM", decoder, "/m", "float16", CPU)
    assert made.scheduler.max_model_len == 256


def test_sliding_window_may_be_a_cap() -> None:
    mistral = import_module("vllm.models.mistral")
    decoder = mistral.describe(HFConfig({**mistral.TINY, "hidden_act": "silu", "rms_norm_eps": 1e-6}))
    args = EngineArgs(model="m", disable_sliding_window=True)
    assert resolve(args, "MistralForCausalLM", decoder, "/m", "bfloat16", CPU).scheduler.max_model_len == 12


def test_cpu_cache_follows_need_and_stops_at_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = plan(max_num_seqs=4, max_model_len=1024)
    assert roomy.memory.kv < GIB and "4 sequences of 1024 tokens" in why(roomy, "KV cache")
    assert roomy.max_tokens_in_cache >= 4 * 1024
    full = plan(max_num_seqs=4096)
    assert full.memory.kv <= CPU.free_bytes // 4 < full.memory.kv + full.kv.num_slabs * full.kv.block_bytes
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert plan().memory.kv <= 2 * GIB < plan().memory.kv + full.kv.num_slabs * full.kv.block_bytes


def test_blocks_may_be_counted_by_hand() -> None:
    made = plan(num_gpu_blocks_override=100, block_size=16, max_model_len=512)
    assert made.kv.num_blocks == 101 and made.max_tokens_in_cache == 1600


@pytest.mark.parametrize("size", [8, 48, 100])
def test_block_sizes_of_a_gpu_are_powers_of_two(size: int) -> None:
    with pytest.raises(
        ValidationError, match=rf"block_size must be a power of two of at least 16 on a GPU, got {size}"
    ):
        plan(H200, block_size=size)
    assert plan(H200, block_size=32).kv.groups[0].block_size == 32
    assert plan(CPU, block_size=size).kv.groups[0].block_size == size


def test_context_that_does_not_fit_names_the_longest() -> None:
    with pytest.raises(CapacityError, match=r"max_model_len 131072 needs .* The longest that fits is (\d+)") as caught:
        plan(num_gpu_blocks_override=100, max_model_len=None)
    longest = int(str(caught.value).partition("fits is ")[2].partition(":")[0])
    assert plan(num_gpu_blocks_override=100, max_model_len=longest).max_tokens_in_cache == longest == 6400
    for word in (-1, "auto"):
        assert plan(num_gpu_blocks_override=100, max_model_len=word).scheduler.max_model_len == longest


def told(**asked: Any) -> str:
    with pytest.raises(CapacityError) as caught:
        plan(**asked)
    return str(caught.value)


def ways(sentence: str) -> list[dict[str, Any]]:
    """The arguments of each way that a sentence names."""
    words = re.sub(r" \(.*?\)| on \d such GPUs|\.$", "", sentence.partition("What would fit: ")[2])
    return [eval(f"dict({way})") for way in words.split("; or ")]


def test_model_that_does_not_fit_says_what_would() -> None:
    said = told(config=LLAMA_8B)
    assert "8,030,261,248 parameters take 15.0 GiB as bfloat16" in said and "may take 12.0 GiB of Test CPU" in said
    assert "quantization='int8' (weights of 8.5 GiB)" in said and "GPUs" not in said
    said = told(device=replace(H200, free_bytes=10 * GIB), config=LLAMA_8B)
    assert "No way to store it" in said and "this GPU holds a model of about 4.3 billion" in said


LARGE = {**LLAMA_8B, "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64}
LARGE["intermediate_size"] = 28672
SMALL_GPU = DeviceFacts("cuda", "small", 24 * GIB, 23 * GIB, num_cores=16, count=1, fp8=True)


@pytest.mark.parametrize(
    "asked",
    [
        {"config": LLAMA_8B},
        {"config": LLAMA_8B, "stored": "float32", "dtype": "float32"},
        {"config": LLAMA_8B, "device": replace(CPU, free_bytes=24 * GIB), "max_model_len": None},
        {"config": LLAMA_8B, "device": SMALL_GPU, "max_model_len": None},
        {"config": LARGE, "device": SMALL_GPU},
        {"config": LARGE, "device": replace(SMALL_GPU, fp8=False, free_bytes=40 * GIB, total_bytes=40 * GIB)},
        {"kv_cache_memory_bytes": 32 * GIB},
        {"num_gpu_blocks_override": 10**6, "device": SMALL_GPU},
        {"config": LLAMA_8B, "device": SMALL_GPU, "max_num_batched_tokens": 65536},
    ],
    ids=lambda asked: "-".join(asked),
)
def test_what_is_said_to_fit_fits(asked: dict[str, Any]) -> None:
    found = ways(told(**asked))
    assert 1 <= len(found) <= 3
    for way in found:
        there = asked.get("device", CPU)
        plan(**{**asked, **way, "device": replace(there, count=8)})
        for name in way:  # why: each part of a way is needed
            if len(way) > 1 and not {"max_model_len", "max_num_batched_tokens"} & set(way):
                less = {k: v for k, v in way.items() if k != name}
                with pytest.raises(CapacityError):
                    plan(**{**asked, **less, "device": replace(there, count=8)})


def test_a_cache_that_was_sized_by_hand_may_be_left_out() -> None:
    said = told(kv_cache_memory_bytes=32 * GIB)
    assert "KV cache 32.0 GiB" in said and "What would fit: kv_cache_memory_bytes=None" in said


def test_int8_needs_little_more_than_its_own_bytes_to_load() -> None:
    """8B as float32 would be 30 GiB; it is packed map by map."""
    made = plan(replace(CPU, free_bytes=20 * GIB), LLAMA_8B, dtype="float32", quantization="int8")
    assert made.memory.weights < made.memory.loading < 13 * GIB


def test_int8_counts_its_bytes() -> None:
    made = plan(quantization="int8")
    table = 128256 * 512
    # why: embedding and head keep their dtype
    rest, scales = made.num_parameters - 2 * table, made.memory.weights - 2 * 2 * table
    assert made.worker.quantization == "int8" and rest < scales < 1.02 * rest
    tied = plan(config={**SMALL, "tie_word_embeddings": True}, quantization="int8")
    assert tied.memory.weights == made.memory.weights - 2 * table
    assert "slow" in why(plan(replace(CPU, int8=False), quantization="int8"), "quantization")
    with pytest.raises(RefusedError, match="'awq'"):
        plan(quantization="awq")


def test_ranks_share() -> None:
    one, two = plan(H200, LLAMA_8B), plan(H200, LLAMA_8B, tensor_parallel_size=2)
    assert two.kv.num_blocks > 2 * one.kv.num_blocks
    assert two.memory.total <= H200.total_bytes * 0.92
    four = plan(H200, LLAMA_8B, tensor_parallel_size=2, pipeline_parallel_size=2)
    assert four.memory.weights < two.memory.weights < one.memory.weights


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"tensor_parallel_size": 3}, r"divisor of the 8 attention heads.*These sizes would do: 1, 2, 4, 8\."),
        ({"tensor_parallel_size": 16}, "divisor of the 8 attention heads"),
        ({"pipeline_parallel_size": 3}, r"at most the number of layers \(2\)"),
        ({"data_parallel_size": 2}, "data_parallel_size"),
    ],
)
def test_splits_that_cannot_be_made(sizes: dict[str, int], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        plan(**sizes)


def test_a_vocabulary_that_ranks_do_not_divide_is_padded() -> None:
    odd, even = (plan(config={**SMALL, "vocab_size": v}, tensor_parallel_size=2).memory.weights for v in (1027, 1152))
    assert odd == even, "1027 rows are two shares of 576"


def test_more_ranks_than_devices() -> None:
    with pytest.raises(ValidationError, match=r"ranks \(8\) <= visible devices \(4\)"):
        plan(H200, LLAMA_8B, tensor_parallel_size=8)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"'Qwen9ForCausalLM' is not described.*Did you mean"):
        describe(HFConfig({"architectures": ["Qwen9ForCausalLM"], "auto_map": {"AutoModel": "x.y"}}))
    with pytest.raises(ModelLoadError, match="no 'architectures'"):
        describe(HFConfig({}))


def test_quantized_checkpoint_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"quantized \('gptq'\)"):
        describe(HFConfig({**SMALL, "quantization_config": {"quant_method": "gptq"}}))


def test_missing_key_is_named() -> None:
    config = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    with pytest.raises(ModelLoadError, match="intermediate_size"):
        describe(HFConfig(config))


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_unreadable_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        read_config(tmp_path)


def test_memory_of_a_gpu_is_planned_whole_and_others_are_named() -> None:
    """Nothing is left to come later: a step, steps that are recorded, and what the device keeps of rows."""
    alone = plan(H200, LLAMA_8B)
    assert alone.worker.step_bytes > 0 < alone.worker.graph_bytes
    assert alone.memory.activations > alone.worker.step_bytes + 2 * alone.worker.graph_bytes
    assert alone.memory.total <= 0.92 * H200.total_bytes and "others" not in why(alone, "KV cache")
    larger = plan(H200, LLAMA_8B, max_num_batched_tokens=32768)
    assert larger.worker.step_bytes > alone.worker.step_bytes and larger.memory.kv < alone.memory.kv
    eager = plan(H200, LLAMA_8B, enforce_eager=True)
    assert eager.worker.graph_bytes == 0 and eager.memory.kv > alone.memory.kv
    assert plan(CPU).worker.step_bytes == plan(CPU).worker.graph_bytes == 0
    shared = replace(H200, free_bytes=99 * GIB, others=("python (pid 7): 40960 MiB",))
    beside = plan(shared, LLAMA_8B)
    assert abs(alone.memory.kv - beside.memory.kv - 40 * GIB) <= 16 << 20
    assert "less what others hold: 41.0 GiB (python (pid 7): 40960 MiB)" in why(beside, "KV cache")
    with pytest.raises(CapacityError, match=r"others hold 41.0 GiB \(python \(pid 7\): 40960 MiB\)"):
        plan(shared, LLAMA_8B, num_gpu_blocks_override=100_000)
