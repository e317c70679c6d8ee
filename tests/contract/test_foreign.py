"""Networks that we do not describe run on the paged cache with transformers' own code, and agree with it."""

import json
from copy import deepcopy
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.contract.foreign_configs import FOREIGN
from tests.contract.models import reference, save
from tests.unit.worker.helpers import Host, make_kv_plan, make_worker_plan
from vllm.errors import ModelLoadError, RefusedError, UnknownArchitectureError
from vllm.executor.local import LocalExecutor
from vllm.layers.foreign import ATTENTION, answering, attention_function, pack_linears
from vllm.loading.foreign.describe import describe_foreign
from vllm.loading.foreign.skeleton import make_skeleton
from vllm.ops.table import Kernel, Kernels
from vllm.parts.checkpoint import Weights
from vllm.parts.foreign import Foreign
from vllm.planning.describe import MODELS
from vllm.protocol.plan import LoadPlan

STEPS = 64
PROMPTS = [
    [5, 9, 22, 71, 3, 3, 50, 8, 13, 21, 34, 55, 89, 1, 2, 3, 4],
    [7, 99, 100, 3],
    [(37 * i + 11) % 131 for i in range(29)],
]
CHUNKS = [((0, 7), (1, 3), (2, 10)), ((2, 11), (0, 10)), ((1, 1), (2, 8))]


def saved(config: dict, folder: Path) -> tuple[torch.nn.Module, dict]:
    """transformers' model of a configuration, its checkpoint in `folder`, and config.json."""
    model = reference(config)
    save(model, folder)
    model.set_attn_implementation("eager")
    return model, json.loads((folder / "config.json").read_text())


def host_of(foreign: Foreign, folder: Path, block_size: int = 4, **changes) -> Host:
    kv_plan = make_kv_plan(foreign, num_blocks=200, block_size=block_size)
    plan = make_worker_plan(**changes)
    return Host(LocalExecutor(foreign, Weights(()), plan, kv_plan, LoadPlan(str(folder))), kv_plan)


def run(host: Host) -> dict[int, list[torch.Tensor]]:
    """All prompts in chunks beside each other, then STEPS tokens each. Gives the logits of every sampled token."""
    taken: dict[int, list[torch.Tensor]] = {row: [] for row in range(len(PROMPTS))}
    model = host.executor.runner.model
    plain = model.logits
    lines: list[torch.Tensor] = []

    def spy(hidden: torch.Tensor, wide: bool = True) -> torch.Tensor:
        out = plain(hidden, wide)
        lines.extend(out.clone())
        return out

    def step(*asks: tuple[int, int]) -> None:
        lines.clear()
        result = host.step(*asks)
        # why: a runner gives its device the longest sequences first, and says whose lines these are
        for seq, line in zip(result.seq_ids, lines, strict=True):
            taken[seq - 100].append(line)

    model.logits = spy
    for row, prompt in enumerate(PROMPTS):
        host.open(row, prompt, max_len=120)
    for asks in CHUNKS:
        step(*asks)
    while rows := [r for r, p in enumerate(PROMPTS) if len(host.tokens(r)) < len(p) + STEPS]:
        step(*((row, 1) for row in rows if host.seqs[row][2] < len(host.tokens(row))))
    return taken


def assert_equal(host: Host, taken: dict[int, list[torch.Tensor]], model: torch.nn.Module) -> None:
    for row, prompt in enumerate(PROMPTS):
        tokens = host.tokens(row)
        with torch.no_grad():
            theirs = model(torch.tensor([tokens[:-1]]), use_cache=False).logits[0, len(prompt) - 1 :]
        ours = torch.stack(taken[row])
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
        assert tokens[len(prompt) :] == theirs.argmax(-1).tolist()
        assert len(set(tokens[len(prompt) :])) > 1


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_equals_transformers(name: str, tmp_path: Path) -> None:
    model, config = saved(FOREIGN[name], tmp_path)
    foreign = describe_foreign(tmp_path, config)
    assert foreign.num_parameters == sum(p.numel() for p in model.parameters())
    assert foreign.vocab == 131
    host = host_of(foreign, tmp_path)
    assert_equal(host, run(host), model)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cohere2", "deepseek_v3", "gemma3n", "gpt_oss"])
def test_equals_transformers_on_a_gpu(name: str, tmp_path: Path) -> None:
    model, config = saved(FOREIGN[name], tmp_path)
    host = host_of(describe_foreign(tmp_path, config), tmp_path, 16, device="cuda:0")
    taken = {row: [line.cpu() for line in lines] for row, lines in run(host).items()}
    assert_equal(host, taken, model)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cohere2", "deepseek_v3", "gemma3n"])
def test_runs_on_a_gpus_own_kernels(name: str, tmp_path: Path) -> None:
    """Their products of float32 are rounded to 10 bits, so logits are close and tokens may differ."""
    model, config = saved(FOREIGN[name], tmp_path)
    host = host_of(describe_foreign(tmp_path, config), tmp_path, 16, device="cuda:0", kernels={})
    for row, ours in run(host).items():
        with torch.no_grad():
            theirs = model(torch.tensor([host.tokens(row)[:-1]]), use_cache=False).logits[0, len(PROMPTS[row]) - 1 :]
        assert (torch.stack(ours).cpu() - theirs).norm() <= 1e-2 * theirs.norm()


def test_enough_of_them_are_not_described() -> None:
    assert len({_class_of(config) for config in FOREIGN.values()} - set(MODELS.names())) >= 15


def test_described_networks_run_through_it_too(tmp_path: Path) -> None:
    config = deepcopy(MODELS.load("LlamaForCausalLM").TINY)
    config.update(vocab_size=131, max_position_embeddings=256)
    model, said = saved(config, tmp_path)
    host = host_of(describe_foreign(tmp_path, said), tmp_path)
    assert_equal(host, run(host), model)


def test_kinds_of_cache() -> None:
    def kinds(name: str) -> list:
        config = FOREIGN[name]
        return describe_foreign(Path("."), {**config, "architectures": [_class_of(config)]}).kv_kinds()

    assert [k.window for k in kinds("gpt_oss") if hasattr(k, "window")] == [7]
    assert {(k.head_dim, k.v_head_dim) for k in kinds("deepseek_v3")} == {(24, 12)}
    assert len(kinds("gemma3n")) == 4


def _class_of(config: dict) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]


def skeleton(name: str, **changes) -> torch.nn.Module:
    config = {**FOREIGN[name], **changes}
    return make_skeleton(Path("."), {**config, "architectures": [_class_of(config)]}, torch.float32, 64)


def test_transformers_honours_the_hook() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    whole = skeleton("cohere")
    assert ALL_ATTENTION_FUNCTIONS[ATTENTION] is attention_function
    assert ATTENTION not in ALL_MASK_ATTENTION_FUNCTIONS
    assert whole.config._attn_implementation == ATTENTION
    assert all(p.device.type == "meta" for p in whole.parameters())
    assert all(b.device.type == "cpu" for b in whole.buffers())
    before = torch.nn.Linear(2, 2)
    assert before.weight.device.type == "cpu"


def test_describes_what_would_not_fit() -> None:
    """gpt-oss-120b, whose parameters would take 467 GB, with the total its makers published."""
    before = getrusage(RUSAGE_SELF).ru_maxrss
    foreign = describe_foreign(Path("."), {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"]})
    assert foreign.num_parameters == 116_829_156_672
    assert [call.window for call in foreign.calls] == [128, None] * 18
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 500 << 10, "in KiB"


class Largest(TorchDispatchMode):
    """The largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@pytest.mark.parametrize("name", ["cohere2", "gpt_oss"])
def test_builds_no_square_mask(name: str) -> None:
    tokens = 4096
    whole = skeleton(name, max_position_embeddings=tokens).to_empty(device="cpu")
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    masks = []

    def answer(call):
        masks.append(call.mask)
        return call.query.transpose(1, 2)

    with torch.inference_mode(), answering(answer), Largest() as largest:
        whole.base_model(input_ids=ids, position_ids=torch.arange(tokens)[None], attention_mask=None, use_cache=False)
    assert masks == [None, None]
    assert largest.numel < tokens * tokens


REFUSED = [
    ({"model_type": "stablelm"}, "StableLmForCausalLM", "_supports_attention_backend"),
    ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "Lfm2ForCausalLM", "layers of type conv"),
    ({"model_type": "mamba"}, "MambaForCausalLM", "layers of type linear_attention"),
    ({"model_type": "rwkv"}, "RwkvForCausalLM", "_supports_attention_backend"),
    ({"model_type": "llama4_text"}, "Llama4ForCausalLM", "layers of type chunked_attention"),
    ({"model_type": "bert"}, "BertLMHeadModel", "attends to later tokens too"),
    ({"model_type": "t5"}, "T5ForConditionalGeneration", "encoder-decoder"),
    ({"model_type": "bart"}, "BartForCausalLM", "encoder-decoder"),
    ({"model_type": "gemma3"}, "Gemma3ForConditionalGeneration", "more than text"),
    ({"model_type": "llama"}, "LlamaForSequenceClassification", "does not generate text"),
    ({"model_type": "doge"}, "DogeForCausalLM", "attention mask of its own"),
    (
        {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}},
        "LlamaForCausalLM",
        "quantized ('gptq')",
    ),
]


@pytest.mark.parametrize(("config", "name", "why"), REFUSED, ids=[name for _, name, _ in REFUSED])
def test_refuses_with_a_sentence(config: dict, name: str, why: str, tmp_path: Path) -> None:
    base = {k: v for k, v in FOREIGN["arcee"].items() if k != "model_type"} if config["model_type"] != "gemma3" else {}
    with pytest.raises(RefusedError) as caught:
        describe_foreign(tmp_path, {**base, "architectures": [name], **config})
    message = str(caught.value)
    assert why in message
    assert "\n" not in message
    assert message.endswith(".")


def test_names_the_nearest_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitectureError, match="Did you mean 'CohereForCausalLM'"):
        describe_foreign(tmp_path, {"model_type": "new", "architectures": ["CohereForCausalLLM"]})
    with pytest.raises(ModelLoadError, match="hidden_size"):
        describe_foreign(tmp_path, {**FOREIGN["arcee"], "hidden_size": "x", "architectures": ["ArceeForCausalLM"]})


def test_a_folder_does_not_choose_how_it_is_run(tmp_path: Path) -> None:
    model, config = saved(FOREIGN["olmoe"], tmp_path)
    flags = {"_attn_implementation": "someone/kernels", "experts_implementation": "someone/more", "return_dict": False}
    config.update(flags, attn_implementation="someone/kernels", output_hidden_states=True, output_router_logits=True)
    host = host_of(describe_foreign(tmp_path, config), tmp_path)
    assert_equal(host, run(host), model)


CUSTOM_CONFIG = """
import pathlib
from transformers import LlamaConfig

pathlib.Path(__file__).with_name("ran").touch()
pathlib.Path({marker!r}).touch()


class OwnConfig(LlamaConfig):
    model_type = "own"
"""
CUSTOM_MODEL = """
from transformers import LlamaForCausalLM

from .configuration_own import OwnConfig


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_the_folder_runs_only_when_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    folder, marker = tmp_path / "own", tmp_path / "ran"
    folder.mkdir()
    saved({**FOREIGN["arcee"], "model_type": "llama"}, folder)
    (folder / "configuration_own.py").write_text(CUSTOM_CONFIG.format(marker=str(marker)))
    (folder / "modeling_own.py").write_text(CUSTOM_MODEL)
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="own", architectures=["OwnForCausalLM"])
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownArchitectureError, match="trust_remote_code=True"):
        describe_foreign(folder, config)
    assert not marker.exists()
    foreign = describe_foreign(folder, config, trust_remote_code=True)
    assert marker.exists()
    assert foreign.architecture == "OwnForCausalLM"
    assert len(run(host_of(foreign, folder))[0]) == STEPS


def test_sees_which_weights_are_read_past_their_map() -> None:
    def bare(name: str) -> frozenset[str]:
        config = FOREIGN[name]
        return describe_foreign(Path("."), {**config, "architectures": [_class_of(config)]}).bare_linears

    assert bare("arcee") == frozenset()
    assert bare("cohere") == {"lm_head"}, "it is the token table too"
    assert bare("hunyuan_v1_moe") == {"model.layers.0.mlp.gate.wg", "model.layers.1.mlp.gate.wg"}


def test_packs_every_other_map() -> None:
    def pack(weight: torch.Tensor) -> object:
        weight.add_(1.0)
        return ["packed", weight.clone()]

    def linear(x: torch.Tensor, packed: list, bias: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.linear(x, packed[1] - 1.0, bias)

    ops = Kernels({"linear": Kernel("test", linear, lambda target: True, 1, {"pack": pack})})
    whole = reference(FOREIGN["hunyuan_v1_moe"])
    bare = {"model.layers.0.mlp.gate.wg", "model.layers.1.mlp.gate.wg"}
    plain = {name for name, module in whole.named_modules() if type(module) is torch.nn.Linear}
    ids = torch.tensor([[5, 9, 22]])
    with torch.no_grad():
        before = whole(ids, use_cache=False).logits
        pack_linears(whole, bare, ops, torch.float32)
        after = whole(ids, use_cache=False).logits
    left = {name for name, module in whole.named_modules() if type(module) is torch.nn.Linear}
    assert len(plain) > 8
    assert left == bare
    assert torch.allclose(before, after, atol=1e-3)
