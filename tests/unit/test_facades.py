"""Import paths of vLLM that are kept alive: pinned, tiny, and pointing at the real thing."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vllm

FACADES = {
    "vllm.beam_search": {"BeamSearchOutput", "BeamSearchSequence"},
    "vllm.benchmarks.lib.utils": {"redact_sensitive_namespace"},
    "vllm.benchmarks.latency": {"add_cli_args", "main"},
    "vllm.benchmarks.serve": {"add_cli_args", "main"},
    "vllm.benchmarks.startup": {"add_cli_args", "main"},
    "vllm.benchmarks.throughput": {"add_cli_args", "main"},
    "vllm.config": {"CompilationConfig", "KVTransferConfig", "PoolerConfig", "ProfilerConfig", "VllmConfig"},
    "vllm.config.compilation": {"CUDAGraphMode", "CompilationConfig", "CompilationMode", "PassConfig"},
    "vllm.config.kv_events": {"KVEventsConfig"},
    "vllm.config.kv_transfer": {"KVTransferConfig"},
    "vllm.config.pooler": {"PoolerConfig"},
    "vllm.config.profiler": {"ProfilerConfig"},
    "vllm.config.structured_outputs": {"StructuredOutputsConfig"},
    "vllm.config.vllm": {"VllmConfig"},
    "vllm.distributed": {"cleanup_dist_env_and_memory"},
    "vllm.distributed.parallel_state": {"cleanup_dist_env_and_memory", "destroy_model_parallel"},
    "vllm.engine.arg_utils": {"EngineArgs", "AsyncEngineArgs"},
    "vllm.engine.async_llm_engine": {"AsyncLLMEngine"},
    "vllm.engine.llm_engine": {"LLMEngine"},
    "vllm.entrypoints.chat_utils": {"load_chat_template", "resolve_hf_chat_template"},
    "vllm.entrypoints.launcher": {"serve_http"},
    "vllm.entrypoints.launchers.launcher": {"serve_http"},
    "vllm.entrypoints.serve.utils.api_utils": {"with_cancellation"},
    "vllm.entrypoints.utils": {"with_cancellation"},
    "vllm.inputs.data": {"EmbedsPrompt", "PromptType", "TextPrompt", "TokensPrompt"},
    "vllm.logger": {"init_logger"},
    "vllm.logprobs": {"Logprob", "PromptLogprobs", "SampleLogprobs"},
    "vllm.lora.request": {"LoRARequest"},
    "vllm.platforms": {"current_platform"},
    "vllm.renderers.chat_utils": {"load_chat_template"},
    "vllm.renderers.hf": {"resolve_chat_template"},
    "vllm.sequence": {"Logprob", "RequestMetrics"},
    "vllm.tokenizers": {"TokenizerLike", "cached_get_tokenizer", "get_tokenizer"},
    "vllm.transformers_utils.tokenizer": {"AnyTokenizer", "cached_get_tokenizer", "get_tokenizer"},
    "vllm.usage.usage_lib": {"UsageContext"},
    "vllm.utils": {"FlexibleArgumentParser", "get_ip", "get_open_port", "random_uuid"},
    "vllm.utils.argparse_utils": {"FlexibleArgumentParser"},
    "vllm.utils.network_utils": {"get_ip", "get_open_port"},
    "vllm.utils.print_utils": {"print_embeddings"},
    "vllm.utils.serial_utils": {"EMBED_DTYPES", "ENDIANNESS", "binary2tensor", "tensor2base64"},
    "vllm.utils.system_utils": {"set_ulimit"},
    "vllm.v1.engine.async_llm": {"AsyncLLM"},
    "vllm.v1.engine.exceptions": {"EngineDeadError", "EngineGenerateError"},
    "vllm.v1.engine.llm_engine": {"LLMEngine"},
    "vllm.v1.metrics.reader": {"Counter", "Gauge", "Histogram", "Metric", "Vector"},
    "vllm.v1.sample.logits_processor": {"AdapterLogitsProcessor", "BatchUpdate", "LogitsProcessor"},
    "vllm.v1.sample.logits_processor.builtin": {"process_dict_updates"},
}
ABSENT = {
    "vllm.assets",
    "vllm.benchmarks.datasets",
    "vllm.compilation",
    "vllm.distributed.device_communicators",
    "vllm.distributed.kv_transfer",
    "vllm.distributed.utils",
    "vllm.distributed.weight_transfer",
    "vllm.forward_context",
    "vllm.ir",
    "vllm.model_executor",
    "vllm.multimodal",
    "vllm.reasoning",
    "vllm.tool_parsers",
    "vllm.utils.gpu_sync_debug",
    "vllm.v1.core",
    "vllm.v1.executor",
    "vllm.v1.spec_decode",
    "vllm.v1.structured_output",
    "vllm.v1.watermarking",
    "vllm.v1.worker",
}
ROOT = Path(vllm.__file__).parent


def module_name(file):
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_facade_is_missing_here():
    users = {module_name(f) for f in ROOT.rglob("*.py") if "util.facade import forward" in f.read_text("utf-8")}
    assert users == set(FACADES)
    absent = {module_name(f) for f in ROOT.rglob("*.py") if "util.facade import absent" in f.read_text("utf-8")}
    assert absent == ABSENT


@pytest.mark.parametrize("name", sorted(FACADES))
def test_facade(name):
    module = importlib.import_module(name)
    assert len(Path(module.__file__).read_text("utf-8").splitlines()) <= 13
    for attribute in FACADES[name]:
        assert getattr(module, attribute) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_is_not_here_says_so(name):
    with pytest.raises(ImportError, match=rf"^{name} is not part of this implementation: .*\.$") as told:
        importlib.import_module(f"{name}.something.deeper")
    assert told.value.name == name


def test_facades_import_nothing_heavy():
    loads = f"import sys\nfor m in {sorted(FACADES)}: __import__(m)\n"
    code = loads + "print(sorted(m for m in ('torch', 'jinja2') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_they_are_the_real_things():
    from vllm.lora.request import LoRARequest
    from vllm.utils import get_open_port, random_uuid

    assert LoRARequest("a", 1, "/x").adapter_id == 1
    with pytest.raises(ValueError, match="lora_int_id"):
        LoRARequest("a", 0, "/x")
    assert 1024 <= get_open_port() < 65536 and len(random_uuid()) == 32


def test_configuration_objects_are_dicts():
    from vllm import EngineArgs
    from vllm.config import CompilationConfig, KVTransferConfig, PoolerConfig, StructuredOutputsConfig
    from vllm.config.compilation import CompilationMode

    config = CompilationConfig(mode=CompilationMode.NONE, cudagraph_capture_sizes=[1, 2])
    assert config.mode == config["mode"] == 0 and repr(PoolerConfig(dimensions=8)) == "PoolerConfig(dimensions=8)"
    with pytest.raises(AttributeError, match="holds mode, cudagraph_capture_sizes"):
        _ = config.level
    args = EngineArgs(
        compilation_config=config,
        pooler_config=PoolerConfig(pooling_type="MEAN"),
        structured_outputs_config=StructuredOutputsConfig(backend="xgrammar"),
    )
    assert args.pooler_config == {"pooling_type": "MEAN"}
    assert args.enable_lora is None and args.swap_space == 4 and args.create_engine_config().engine_args is args
    with pytest.raises(AttributeError, match=r"Did you mean .max_model_len."):
        _ = args.max_model_length
    with pytest.raises(ValueError, match=r"kv_transfer_config=.*stay on the device"):
        EngineArgs(kv_transfer_config=KVTransferConfig(kv_connector="X", kv_role="kv_both"))


def test_odds_and_ends(capsys, monkeypatch):
    import torch

    import vllm.envs as envs
    from vllm import ModelRegistry
    from vllm.platforms import current_platform
    from vllm.utils.network_utils import get_ip
    from vllm.utils.print_utils import print_embeddings
    from vllm.utils.serial_utils import ENDIANNESS, binary2tensor, tensor2base64

    print_embeddings([0.5, 1.0, 2.0, 3.0, 4.0])
    assert capsys.readouterr().out == "Embeddings: [0.5, 1.0, 2.0, 3.0, ...] (size=5)\n"
    x = torch.tensor([1.5, -2.0, 3.25], dtype=torch.bfloat16)
    assert tensor2base64(x)
    data = bytes(x.view(torch.uint8).tolist())
    assert binary2tensor(data, (3,), "bfloat16").tolist() == x.tolist()
    other = ENDIANNESS[1] if __import__("sys").byteorder == "little" else ENDIANNESS[2]
    swapped = b"".join(data[i : i + 2][::-1] for i in range(0, 6, 2))
    assert binary2tensor(swapped, (-1,), "bfloat16", other).tolist() == x.tolist()
    assert get_ip().count(".") == 3
    monkeypatch.setenv("VLLM_PLATFORM", "cpu")
    assert current_platform.is_cpu() and not current_platform.is_cuda() and current_platform.device_type == "cpu"
    assert envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE == 5 and envs.VLLM_PLATFORM == "cpu"
    assert "LlamaForCausalLM" in ModelRegistry.get_supported_archs()
    with pytest.raises(ValueError, match=r"CONTRIBUTING\.md"):
        ModelRegistry.register_model("Mine", object)


def test_a_script_of_its_own_flags_beside_the_engines():
    from vllm import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    parser.add_argument("--log-level", default="debug")
    parser.add_argument("--port", type=parser.check_port, default=8000)
    EngineArgs.add_cli_args(parser)
    args = parser.parse_args(["--max-model-len", "4k", "--port", "81"])
    assert args.port == 81 and EngineArgs.from_cli_args(args).log_level == "debug"
    with pytest.raises(SystemExit):
        parser.parse_args(["--port", "99999"])


def test_serving_as_the_demonstration_server_does():
    import asyncio
    import signal

    import httpx
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from vllm.entrypoints.launchers.launcher import serve_http
    from vllm.entrypoints.serve.utils.api_utils import with_cancellation
    from vllm.utils.network_utils import get_open_port

    cancelled = []

    @with_cancellation
    async def work(body, raw_request):
        try:
            await asyncio.sleep(float(body))
        except asyncio.CancelledError:
            cancelled.append(body)
            raise
        return PlainTextResponse("done")

    async def handle(request):
        return await work((await request.body()).decode(), raw_request=request) or PlainTextResponse("", 499)

    async def run():
        port = get_open_port()
        app = Starlette(routes=[Route("/work", handle, methods=["POST"])])
        served = asyncio.create_task(serve_http(app, sock=None, host="127.0.0.1", port=port, log_level="warning"))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(200):
                try:
                    answer = await client.post("/work", content="0.01")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
            assert answer.text == "done"
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/work", content="30", timeout=0.3)
        while not cancelled:
            await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        await (await served)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert cancelled == ["30"]


def test_tools_copy_sampling_params_by_their_fields():
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    made = SamplingParams(temperature=0.3, stop=["x"], max_tokens=7)
    words = {name: getattr(made, name) for name in made.__struct_fields__}
    words["structured_outputs"] = StructuredOutputsParams(choice=["a"])
    again = SamplingParams(**words)
    assert (again.temperature, again.stop, again.max_tokens) == (0.3, ["x"], 7)


def test_ranks_of_torchrun_are_refused_in_words():
    from vllm import EngineArgs

    assert EngineArgs(distributed_executor_backend="external_launcher").tensor_parallel_size == 1
    with pytest.raises(ValueError, match="an engine starts its own ranks"):
        EngineArgs(distributed_executor_backend="external_launcher", tensor_parallel_size=2)


def test_as_lm_eval_uses_them(tmp_path):
    from tests.support.chat_templates import CHATML
    from tests.support.tokenizer_zoo import byte_level, save
    from vllm.renderers.hf import resolve_chat_template
    from vllm.tokenizers import get_tokenizer

    folder = save(
        byte_level(), tmp_path, {"chat_template": CHATML, "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    )
    tok = get_tokenizer(str(folder), tokenizer_mode="auto", trust_remote_code=False, revision=None, add_bos_token=True)
    assert tok("Hi").input_ids[0] == tok.bos_token_id
    template = resolve_chat_template(tokenizer=tok, chat_template=None, tools=None, model_config=None)
    chat = [{"role": "user", "content": "Hi"}]
    text = tok.apply_chat_template(
        chat,
        tokenize=False,
        add_generation_prompt=True,
        continue_final_message=False,
        chat_template=template,
        enable_thinking=None,
    )
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tok(["a", "b"], return_attention_mask=False, add_special_tokens=False).input_ids == [
        tok.encode(x)[1:] for x in "ab"
    ]
    assert tok.decode(tok.bos_token_id) == "<|im_start|>" and tok.name_or_path == str(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    assert resolve_chat_template(tokenizer=get_tokenizer(folder)) is None
