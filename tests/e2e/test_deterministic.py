"""Deterministic mode as a user meets it: a request gives the same tokens and log-probabilities to the bit, alone, among
256, in chunks of any size, after a preemption, a prefix hit or a restart; also with int8 and over several ranks."""

import gc
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.models import reference, save, tiny_configs
from tests.e2e.test_gpu_memory import SHAPE
from vllm import LLM, SamplingParams, TokensPrompt

VOCAB = 331
CONFIG = {
    "model_type": "qwen3",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
PROMPT = [(7 * i + 3) % VOCAB for i in range(61)]
KINDS: list[dict[str, Any]] = [
    {"temperature": 0.0, "prompt_logprobs": 2},
    {"temperature": 1.0},
    {"temperature": 0.9, "top_k": 40, "top_p": 0.9},
    {"temperature": 1.1, "top_p": 0.97, "repetition_penalty": 1.1, "presence_penalty": 0.5},
]
WIDE = {**CONFIG, "hidden_size": 256, "intermediate_size": 512, "vocab_size": 384, "head_dim": 64}
"""Sizes for which a GPU has kernels of its own."""
HOW: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "int8 in float32": {"dtype": "float32", "quantization": "int8"},
}
GPU_HOW = {"float16": {"dtype": "float16"}, "fp8 cache": {"dtype": "bfloat16", "kv_cache_dtype": "fp8"}}
MANY = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("qwen3")
    save(reference(CONFIG), made)
    return made


def wanted(kind: int, length: int = 24) -> SamplingParams:
    """What the watched request asks for."""
    return SamplingParams(max_tokens=length, logprobs=3, seed=kind, ignore_eos=True, **KINDS[kind])


def answer(out: Any) -> tuple[Any, ...]:
    """All that must not change by a bit."""
    (one,) = out.outputs
    return one.token_ids, one.cumulative_logprob, one.logprobs, out.prompt_logprobs


def alone(llm: LLM, prompt: list[int] = PROMPT, length: int = 24) -> list[tuple[Any, ...]]:
    """Each kind of request by itself, reading nothing that another one cached."""
    found = []
    for kind in range(len(KINDS)):
        llm.reset_prefix_cache()
        (out,) = llm.generate(TokensPrompt(prompt_token_ids=prompt), wanted(kind, length), use_tqdm=False)
        assert not out.num_cached_tokens
        found.append(answer(out))
    return found


def among(
    llm: LLM, others: int, seed: int, prompt: list[int] = PROMPT, length: int = 24, most: int = 40
) -> list[tuple[Any, ...]]:
    """The same requests somewhere among `others`, which are of all kinds and lengths."""
    dice = random.Random(seed)
    top = max(prompt)
    prompts = [[dice.randrange(3, top) for _ in range(dice.randint(1, most))] for _ in range(others)]
    params = [
        SamplingParams(max_tokens=dice.randint(1, 30), logprobs=1, seed=i, ignore_eos=True, **KINDS[i % 4])
        for i in range(others)
    ]
    places = sorted(dice.sample(range(others), len(KINDS)))
    for kind, place in enumerate(places):
        prompts.insert(place, prompt)
        params.insert(place, wanted(kind, length))
    outs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], params, use_tqdm=False)
    return [answer(outs[place]) for place in places]


def engine(folder: Path | str, **args: Any) -> LLM:
    """A deterministic engine of small steps."""
    given = {"skip_tokenizer_init": True, "max_model_len": 128, "block_size": 16, "num_gpu_blocks_override": 3000}
    return LLM(str(folder), deterministic=True, **{**given, **args})


@pytest.mark.gpu_too
@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=pytest.mark.slow) if how == "int8 in float32" else how for how in HOW]
)
def test_same_bits_whatever_happens(folder: Path, how: str) -> None:
    if "int8" in how and torch.cuda.is_available():
        pytest.skip("int8 is refused on a GPU")
    check(folder, how)


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["bfloat16", "float16", "fp8 cache"])
def test_same_bits_of_larger_maps(tmp_path: Path, how: str) -> None:
    save(reference(WIDE), tmp_path)
    check(tmp_path, how)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gemma2", "gemma3", "qwen3_moe", "gpt2", "olmo2"])
def test_same_bits_of_other_networks(tmp_path: Path, name: str) -> None:
    """Windows and soft caps, experts, layer norms with biases, norms behind."""
    save(reference(dict(tiny_configs())[name]), tmp_path)
    check(tmp_path, "bfloat16", 100)


@pytest.mark.gpu
@pytest.mark.gpu_alone
def test_same_bits_of_a_real_size(tmp_path: Path) -> None:
    """An 8B shape, where every kind of tile is used: alone, among 255, in steps of 384 tokens, preempted."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    prompt = [(7 * i + 3) % 128_000 for i in range(1500)]
    given = {"load_format": "dummy", "block_size": 64, "max_model_len": 2048, "gpu_memory_utilization": 0.6}
    with engine(tmp_path, max_num_seqs=260, **given) as llm:
        expected = alone(llm, prompt)
        assert among(llm, 255, 1, prompt, most=900) == expected
    with engine(tmp_path, max_num_seqs=40, max_num_batched_tokens=384, **given) as llm:
        assert among(llm, 20, 2, prompt, most=300) == expected
    with engine(tmp_path, max_num_seqs=40, **{**given, "num_gpu_blocks_override": 40}) as llm:
        assert among(llm, 30, 2, prompt, most=300) == expected
        assert llm.llm_engine.assembled.engine.scheduler.num_preempted > 0
    # why here: three engines of a real size have come and gone, and the next test wants the device
    there = [x for x in gc.get_objects() if isinstance(x, torch.Tensor) and x.is_cuda and x.nbytes > 1 << 24]
    held = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    assert max(held) < 1 << 30, f"{held} bytes in use and kept by torch: {[tuple(x.shape) for x in there[:20]]}"


def check(folder: Path, how: str, vocab: int = VOCAB) -> None:
    """Alone, among 256, after prefix hits and restarts, in chunks, preempted."""
    prompt = [token % vocab for token in PROMPT]
    with engine(folder, max_num_seqs=MANY + 4, **{**HOW, **GPU_HOW}[how]) as llm:
        expected = alone(llm, prompt)
        assert len({tuple(tokens) for tokens, *_ in expected}) == len(KINDS), "the kinds do not say the same"
        assert among(llm, MANY, 1, prompt) == expected
        again = llm.generate(
            [TokensPrompt(prompt_token_ids=prompt)] * 3, [wanted(k) for k in (1, 2, 3)], use_tqdm=False
        )
        assert [answer(out) for out in again] == expected[1:]
        assert all((out.num_cached_tokens or 0) >= 48 for out in again)
    for chunk in (1, 7, 16, 50):
        seqs = min(chunk, 4)
        with engine(folder, max_num_seqs=seqs, max_num_batched_tokens=chunk, **{**HOW, **GPU_HOW}[how]) as llm:
            assert alone(llm, prompt) == expected, f"chunks of {chunk} after a restart"
            assert chunk == 1 or among(llm, 4, chunk, prompt) == expected
    tight = {"max_num_batched_tokens": 64, "num_gpu_blocks_override": 20}
    with engine(folder, max_num_seqs=12, **tight, **{**HOW, **GPU_HOW}[how]) as llm:
        assert among(llm, 12, 3, prompt) == expected
        assert llm.llm_engine.assembled.engine.scheduler.num_preempted > 0


# why 4: over two ranks a sum has but one order
SLOW = [pytest.param(how, tp, MANY, marks=pytest.mark.slow) for how in ("int8", "bfloat16") for tp in (2, 4)]


@pytest.mark.parametrize(("how", "tp", "others"), [("int8", 2, 12), *SLOW])
def test_same_bits_over_several_ranks(folder: Path, how: str, tp: int, others: int) -> None:
    given = {"tensor_parallel_size": tp, **HOW[how]}
    expected = None
    if others == MANY:  # why: a start of several processes takes seconds; what is daily has one, with small steps
        with engine(folder, max_num_seqs=others + 4, **given) as llm:
            expected = alone(llm)
            assert among(llm, others, seed=1) == expected
    with engine(folder, max_num_seqs=8, max_num_batched_tokens=24, **{**given, "num_gpu_blocks_override": 20}) as llm:
        assert among(llm, 12, seed=3) == (expected or alone(llm))
        assert llm.llm_engine.assembled.engine.scheduler.num_preempted > 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["bfloat16", "int8"])
def test_same_bits_of_the_built_in_model(how: str) -> None:
    prompt = [300 + (17 * i) % 500 for i in range(200)]
    given = {"max_model_len": 512, "block_size": 32, **HOW[how]}
    with LLM(deterministic=True, max_num_seqs=MANY + 4, **given) as llm:
        expected = alone(llm, prompt, 48)
        assert among(llm, MANY, 1, prompt, 48) == expected
    with LLM(
        deterministic=True, max_num_seqs=40, max_num_batched_tokens=90, num_gpu_blocks_override=40, **given
    ) as llm:
        assert among(llm, 60, 2, prompt, 48) == expected
        assert llm.llm_engine.assembled.engine.scheduler.num_preempted > 0
