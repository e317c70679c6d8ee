"""Between requests: sleep, new weights, calls into the worker, profiles, counts; with the built-in model."""

import asyncio
import gzip
import json
import logging
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vllm
from vllm import LLM, AsyncEngineArgs, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.reader import Counter, Histogram

WEIGHTS = Path(vllm.__file__).parent / "builtin" / "model.safetensors"
EMBED = "model.embed_tokens.weight"
GREEDY = SamplingParams(temperature=0, max_tokens=6)
PROMPT = "The capital of France is"


class Extension:
    """What worker_extension_cls adds."""

    def double(self, number: int) -> tuple[int, str]:
        return 2 * number, self.device.type  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(
        disable_log_stats=False,
        enable_sleep_mode=True,
        max_model_len=512,
        kv_cache_memory_bytes=1 << 24,
        worker_extension_cls=f"{__name__}.Extension",
        profiler_config={"torch_profiler_dir": str(tmp_path_factory.mktemp("profile")), "max_iterations": 2},
    )


def text(llm: LLM, prompt: str = PROMPT) -> str:
    return llm.generate(prompt, GREEDY, use_tqdm=False)[0].outputs[0].text


def test_sleep_and_wake_up(llm: LLM) -> None:
    assert text(llm) == " Paris."
    blocks = llm.llm_engine.assembled.engine.executor
    llm.sleep(level=1)
    assert llm.llm_engine.is_sleeping()
    with pytest.raises(ValueError, match="sleeps; call wake_up"):
        text(llm)
    with pytest.raises(AssertionError, match="closed"):
        _ = blocks.runner  # type: ignore[attr-defined]
    llm.wake_up(tags=["weights"])
    assert llm.llm_engine.is_sleeping()
    llm.wake_up(tags=["kv_cache"])
    assert not llm.llm_engine.is_sleeping() and text(llm) == " Paris."
    with pytest.raises(ValueError, match="tags must be of weights, kv_cache"):
        llm.wake_up(tags=["cache"])
    with pytest.raises(ValueError, match="level must be 1 or 2"):
        llm.sleep(level=7)


def test_sequences_outlive_sleep_and_a_reset(llm: LLM) -> None:
    long = SamplingParams(temperature=0.8, seed=7, max_tokens=24)
    wanted = llm.generate("Once upon a time", long, use_tqdm=False)[0].outputs[0].token_ids
    engine = llm.llm_engine
    engine.add_request("a", "Once upon a time", long)
    for i in range(9):
        engine.step()
        if i == 3:
            engine.reset_prefix_cache(reset_running_requests=True)
        if i == 6:
            engine.sleep(level=2, mode="keep")
            engine.wake_up()
    outputs = []
    while engine.has_unfinished_requests():
        outputs += engine.step()
    assert outputs[-1].finished and outputs[-1].outputs[0].token_ids == wanted
    engine.add_request("b", "Once upon a time", long)
    engine.step()
    engine.sleep()
    assert not engine.has_unfinished_requests()
    engine.wake_up()


def test_new_weights(llm: LLM) -> None:
    stored = load_file(WEIGHTS)[EMBED]
    model = llm.llm_engine.model_executor.driver_worker.model_runner.model
    other = torch.randn(stored.shape, generator=torch.Generator().manual_seed(0)).to(stored.dtype)
    assert model.load_weights([(EMBED, other)]) == {EMBED}
    other.zero_()  # the trainer goes on with its own
    noise = text(llm)
    assert noise != " Paris."
    llm.sleep()
    llm.wake_up()
    assert text(llm) == noise, "what was given is not lost in sleep"
    llm.llm_engine.load_weights({EMBED: stored})
    assert text(llm) == " Paris."
    model.load_weights([(EMBED, torch.zeros_like(stored))])
    assert llm.collective_rpc("reload_weights") == [None] and text(llm) == " Paris."
    with pytest.raises(ValueError, match=r"no tensor 'model\.nonsense."):
        model.load_weights([("model.nonsense", stored)])
    assert text(llm) == " Paris."


def test_a_dummy_model_gets_its_weights() -> None:
    with LLM(load_format="dummy", max_model_len=512, kv_cache_memory_bytes=1 << 24) as made:
        assert text(made) != " Paris."
        made.llm_engine.load_weights(load_file(WEIGHTS))
        assert text(made) == " Paris."
        made.collective_rpc("reload_weights")
        assert text(made) != " Paris."
        made.collective_rpc("update_config", args=({"load_config": {"load_format": "auto"}},))
        made.collective_rpc("reload_weights")
        assert text(made) == " Paris."
        with pytest.raises(ValueError, match="update_config: dtype is fixed"):
            made.collective_rpc("update_config", args=({"dtype": {}},))


def test_calls_into_the_worker(llm: LLM) -> None:
    assert llm.collective_rpc("double", args=(21,)) == [(42, "cpu")]
    assert llm.collective_rpc(lambda worker, a, b: (worker.rank, a, b), args=(1,), kwargs={"b": 2}) == [(0, 1, 2)]
    assert llm.apply_model(lambda model: model.vocab) == [llm.model_config.get_vocab_size()]
    with pytest.raises(AttributeError, match="it has reload_weights"):
        llm.collective_rpc("frobnicate")
    with pytest.raises(AttributeError, match=r"no torch.nn.Module"):
        llm.apply_model(lambda model: model.parameters())
    with pytest.raises(ValueError, match=r"worker_extension_cls must be package.module.Class"):
        LLM(worker_extension_cls="no.such.Thing", kv_cache_memory_bytes=1 << 24, max_model_len=64).collective_rpc(len)


def test_profile(llm: LLM, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="start_profile before"):
        llm.stop_profile()
    llm.start_profile("mine")
    with pytest.raises(ValueError, match="stop_profile first"):
        llm.start_profile()
    llm.llm_engine.reset_prefix_cache()
    text(llm)
    llm.stop_profile()
    folder = Path(llm.llm_engine._args.profiler_config["torch_profiler_dir"])
    (file,) = folder.glob("mine.*.pt.trace.json.gz")
    assert json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    llm.start_profile()
    with caplog.at_level(logging.INFO):
        llm.stop_profile()
    assert len(list(folder.iterdir())) == 2


def test_counts(llm: LLM) -> None:
    def of(name: str) -> int:
        found = [m for m in llm.get_metrics() if m.name == name]
        return sum(m.value if isinstance(m, Counter) else m.count for m in found if isinstance(m, Counter | Histogram))

    names = ("vllm:request_success", "vllm:generation_tokens", "vllm:e2e_request_latency_seconds")
    before = [of(name) for name in names]
    num = len(llm.generate([PROMPT, PROMPT], GREEDY, use_tqdm=False)[0].outputs[0].token_ids)
    assert [of(name) for name in names] == [before[0] + 2, before[1] + 2 * num, before[2] + 2]
    (gaps,) = (m for m in llm.get_metrics() if m.name == "vllm:e2e_request_latency_seconds")
    assert gaps.buckets["+Inf"] == gaps.count and gaps.sum > 0
    llm.llm_engine._counts, kept = None, llm.llm_engine._counts
    with pytest.raises(ValueError, match="disable_log_stats=False"):
        llm.get_metrics()
    llm.llm_engine._counts = kept


def test_pause_and_resume() -> None:
    args = AsyncEngineArgs(max_model_len=512, kv_cache_memory_bytes=1 << 24)
    asyncio.run(asyncio.wait_for(_pause(AsyncLLM.from_vllm_config(args.create_engine_config())), 60))


async def _pause(engine: AsyncLLM) -> None:
    long = SamplingParams(max_tokens=40, ignore_eos=True)
    times: dict[str, list[float]] = {"a": [], "b": []}
    last: dict[str, vllm.RequestOutput] = {}

    async def read(name: str) -> None:
        async for output in engine.generate(PROMPT, long, name):
            times[name].append(time.monotonic())
            last[name] = output

    async def until(name: str, count: int) -> None:
        while len(times[name]) < count:
            await asyncio.sleep(0.001)

    a = asyncio.create_task(read("a"))
    await until("a", 3)
    await engine.pause_generation(mode="keep")
    assert await engine.is_paused()
    seen = len(times["a"])
    b = asyncio.create_task(read("b"))
    await asyncio.sleep(0.3)
    assert len(times["a"]) <= seen + 1 and not times["b"]
    await engine.resume_generation()
    await asyncio.gather(a, b)
    assert last["a"].outputs[0].finish_reason == last["b"].outputs[0].finish_reason == "length"
    for mode, ending in (("wait", "length"), ("abort", "abort")):
        times["a"].clear()
        a = asyncio.create_task(read("a"))
        await until("a", 2)
        await engine.pause_generation(mode=mode)
        await a
        assert last["a"].outputs[0].finish_reason == ending
        await engine.resume_generation()
    with pytest.raises(ValueError, match="mode must be"):
        await engine.pause_generation(mode="nap")
    await engine.sleep()
    assert await engine.is_sleeping()
    with pytest.raises(ValueError, match="wake_up"):
        await read("b")
    await engine.wake_up()
    await read("b")
    assert await engine.collective_rpc(lambda worker: worker.rank) == [0]
    assert await engine.reset_prefix_cache(reset_running_requests=True)
    engine.shutdown()


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_new_weights_are_quantized_as_those_of_a_folder(load_format: str) -> None:
    stored = load_file(WEIGHTS)
    limits = {"max_model_len": 512, "kv_cache_memory_bytes": 1 << 24, "quantization": "int8"}
    with LLM(load_format=load_format, **limits) as made:
        made.llm_engine.load_weights({name: torch.zeros_like(one) for name, one in stored.items() if "mlp" in name})
        assert text(made) != " Paris."
        made.llm_engine.load_weights(stored)
        assert text(made) == " Paris."


def test_sleep_gives_the_memory_back(tmp_path: Path) -> None:
    words = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 32000}
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
    rest = {"max_position_embeddings": 256, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps({**words, **sizes, **rest, "tie_word_embeddings": False}))
    limits = {"load_format": "dummy", "dtype": "float32", "skip_tokenizer_init": True, "kv_cache_memory_bytes": 1 << 25}

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with LLM(model=str(tmp_path), **limits) as made:  # 58 million parameters, 230 MB
        first = made.generate({"prompt_token_ids": [5, 6]}, GREEDY, use_tqdm=False)[0].outputs[0].token_ids
        awake = resident()
        made.sleep()
        assert awake - resident() > 160 << 20
        made.wake_up()
        assert made.generate({"prompt_token_ids": [5, 6]}, GREEDY, use_tqdm=False)[0].outputs[0].token_ids == first
        assert resident() - awake < 80 << 20
