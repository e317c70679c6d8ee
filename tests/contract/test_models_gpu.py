"""Every description on a GPU, with its own kernels, against transformers: small networks in float32 and bfloat16, and
one of a real size."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.fp8_folders import LAYOUTS, Layout, exact, in_blocks, write
from tests.contract.models import expected_logits, reference, save, tiny_configs
from tests.contract.test_models_parity import LENGTH, MAX_LEN, Tap, prompt_of
from tests.e2e.test_deterministic import WIDE
from tests.unit.worker.helpers import Host, make_kv_plan, make_worker_plan
from vllm import LLM, SamplingParams, TokensPrompt
from vllm.executor.local import LocalExecutor
from vllm.loading.loader import load_weights
from vllm.planning.describe import describe, read_config
from vllm.protocol.plan import LoadPlan
from vllm.worker.make import make_runner

pytestmark = pytest.mark.gpu
CONFIGS = tiny_configs()
DTYPES = {"float32": 4, "bfloat16": 2}


def on_gpu(folder: Path, dtype: str, tokens: list[int], chunks: tuple[int, ...], **changes: Any) -> torch.Tensor:
    """Our logits of every position, on the CPU in float32, the tokens given in `chunks` (one token: a decode)."""
    described = describe(read_config(folder))
    stored = described.stored
    held = {} if stored is None else {"quantization": stored.method, "weight_block": stored.block}
    plan = make_worker_plan(device="cuda:0", dtype=dtype, kernels={}, **held, **changes)
    weights = load_weights(described.decoder, described.weights, LoadPlan(str(folder), stored=stored), plan)
    kv_plan = make_kv_plan(described.decoder, 64, 16, DTYPES[dtype])
    host = Host(LocalExecutor.of(make_runner(described.decoder, weights, plan, kv_plan)), kv_plan)
    runner = host.executor.runner
    # why 0.1: fewer rows are added in another order, and a last bit decides between two e4m3 values
    runner.model = runner._decodes._model = tap = Tap(runner.model, 1e-4 if stored is None else 0.1)
    host.open(0, tokens)
    for n in chunks:
        host.step((0, n))
    return torch.cat(tap.seen).float().cpu()


def as_dtype(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The same network with parameters of another dtype. Why not model.to: that also rounds the frequencies of rotary
    embeddings, which no loaded model has in 16 bits, and at position 600 they are then off by a radian."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("deterministic", [False, True], ids=["", "deterministic"])
@pytest.mark.parametrize("config", [c for _, c in CONFIGS], ids=[name for name, _ in CONFIGS])
def test_logits(config: dict, dtype: str, deterministic: bool, tmp_path: Path) -> None:
    """bfloat16: no further from float32 than transformers' own run in bfloat16, times 1.5."""
    model, tokens = reference(config), prompt_of(LENGTH)
    save(model, tmp_path)
    want = expected_logits(model, tokens)
    given = {"max_model_len": MAX_LEN, "deterministic": deterministic, "enforce_eager": True}
    ours = on_gpu(tmp_path, dtype, tokens, (41, 1, 30, 27, 1), **given)
    if dtype == "float32":
        assert (ours - want).abs().max() <= 2e-4 * want.abs().max()
    else:
        with torch.inference_mode():
            small = as_dtype(model, torch.bfloat16).cuda()
            theirs = small(torch.tensor([tokens], device="cuda")).logits[0].float().cpu()
        assert error(ours, want) <= 1.5 * error(theirs, want) + 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("deterministic", [False, True], ids=["", "deterministic"])
@pytest.mark.parametrize("layout", [in_blocks(one, 128) for one in LAYOUTS], ids=[one.name for one in LAYOUTS])
def test_fp8_checkpoints(layout: Layout, dtype: str, deterministic: bool, tmp_path: Path) -> None:
    """bfloat16: no further from what the checkpoint means than transformers in bfloat16 with such maps, times 1.2."""
    model, tokens = reference(WIDE), prompt_of(LENGTH)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.dim() > 1 else 1.0)  # why: scores of tens magnify what rounding does
    write(model, layout, tmp_path)
    meant = exact(model, layout)
    want = expected_logits(meant, tokens)
    given = {"max_model_len": MAX_LEN, "deterministic": deterministic, "enforce_eager": True}
    ours = on_gpu(tmp_path, dtype, tokens, (41, 1, 30, 27, 1), **given)
    theirs = want if dtype == "float32" else expected_logits(as_dtype(meant, torch.bfloat16), tokens).float()
    # why: where an input lies near the middle of two e4m3 values a last bit decides: sums that are off by 2 ** -13 of
    # their mean move these logits by 0.05, as the tensor cores' do; the weights that were made small are 0.13 away
    assert error(ours, want) <= 1.2 * error(theirs, want) + (0.03 if deterministic else 0.08)


def test_a_real_size(tmp_path: Path) -> None:
    """The shape of Qwen3-0.6B: logits of a prompt in bfloat16, then greedy tokens of the engine."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.uniform_(0.5, 1.5) if parameter.dim() == 1 else parameter.normal_(std=0.03)
            if "norm" not in name:
                parameter.copy_(parameter.bfloat16())
    save(as_dtype(model, torch.bfloat16), tmp_path)
    tokens = torch.randint(3, 150_000, (600,), generator=torch.Generator().manual_seed(0)).tolist()
    greedy = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True, logprobs=0)
    prompts = [tokens, tokens[:333], tokens[100:107]]
    given = {"dtype": "bfloat16", "skip_tokenizer_init": True, "max_model_len": 2048, "num_gpu_blocks_override": 100}
    with LLM(str(tmp_path), max_num_batched_tokens=512, **given) as llm:
        outputs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], greedy, use_tqdm=False)
    gc.collect()
    for prompt, out in zip(prompts, outputs, strict=True):
        (one,) = out.outputs
        ids = torch.tensor([prompt + list(one.token_ids)], device="cuda")
        with torch.inference_mode():
            theirs, want = (
                torch.log_softmax(as_dtype(model, dtype)(ids).logits[0, len(prompt) - 1 : -1].float(), -1).cpu()
                for dtype in (torch.bfloat16, torch.float32)
            )
        at = torch.tensor(one.token_ids)[:, None]
        ours = torch.tensor([entry[token].logprob for entry, token in zip(one.logprobs, one.token_ids, strict=True)])
        mine, wanted, their_own = ours, want.gather(1, at)[:, 0], theirs.gather(1, at)[:, 0]
        assert (mine - wanted).norm() <= 1.5 * (their_own - wanted).norm() + 0.02 * len(ours) ** 0.5
        # why: among 150,000 random logits the two best are close, and 16 bits cannot tell them apart
        assert (want.amax(-1) - wanted).max() <= 4 * (theirs - want).abs().max()
