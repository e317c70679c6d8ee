"""Two GPUs: a split model says what one says, over tensor ranks and pipeline stages."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.models import expected_logits, reference, save
from tests.contract.test_models_parity import prompt_of
from tests.e2e.test_deterministic import WIDE
from vllm import LLM, SamplingParams, TokensPrompt

pytestmark = [pytest.mark.multi_gpu, pytest.mark.gpu_alone]
SPLITS = pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2)], ids=["tp2", "pp2"])
REAL = {
    "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip


def engine(folder: Path, tp: int, pp: int, **given: Any) -> LLM:
    usual = {"skip_tokenizer_init": True, "max_model_len": 1024, "num_gpu_blocks_override": 200}
    return LLM(str(folder), tensor_parallel_size=tp, pipeline_parallel_size=pp, **{**usual, **given})


@SPLITS
def test_small_networks_say_what_transformers_says(tp: int, pp: int, tmp_path: Path) -> None:
    model = reference(WIDE)
    save(model, tmp_path)
    prompts = [prompt_of(n, seed=n) for n in (40, 1, 9, 57)]
    greedy = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    small = {"max_model_len": 256, "max_num_batched_tokens": 64, "max_num_seqs": 8}
    with engine(tmp_path, tp, pp, dtype="float32", **small) as llm:
        outs = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], greedy, use_tqdm=False)
    for prompt, out in zip(prompts, outs, strict=True):
        tokens = list(out.outputs[0].token_ids)
        assert tokens == expected_logits(model, prompt + tokens)[len(prompt) - 1 : -1].argmax(-1).tolist()


@SPLITS
def test_a_real_size(tp: int, pp: int, tmp_path: Path) -> None:
    """Log-probabilities of a prompt and of what follows it, beside those of one GPU, in bfloat16."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**REAL), dtype=torch.bfloat16)
    save(model, tmp_path)
    prompt = torch.randint(3, 150_000, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    asked = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, prompt_logprobs=0)
    found = []
    for sizes in ((1, 1), (tp, pp)):
        with engine(tmp_path, *sizes, dtype="bfloat16", max_num_seqs=8) as llm:
            (out,) = llm.generate(TokensPrompt(prompt_token_ids=prompt), asked, use_tqdm=False)
            many = llm.generate([TokensPrompt(prompt_token_ids=prompt[:100])] * 8, asked, use_tqdm=False)
            assert len({tuple(one.outputs[0].token_ids) for one in many}) == 1
        said = [entry[token].logprob for entry, token in zip(out.prompt_logprobs[1:], prompt[1:], strict=True)]
        found.append(torch.tensor(said))
    assert (found[0] - found[1]).abs().max() <= 0.05 * found[0].std() + 0.02


@SPLITS
@pytest.mark.parametrize("how", ["bfloat16"])
def test_deterministic(tp: int, pp: int, how: str, tmp_path: Path) -> None:
    from tests.e2e.test_deterministic import alone, among

    save(reference(WIDE), tmp_path)
    given = {"deterministic": True, "dtype": how, "max_model_len": 128, "block_size": 16}
    with engine(tmp_path, tp, pp, **{**given, "num_gpu_blocks_override": 1000}, max_num_seqs=70) as llm:
        expected = alone(llm)
        assert among(llm, 64, 1) == expected
    with engine(tmp_path, tp, pp, **{**given, "num_gpu_blocks_override": 20}, max_num_seqs=8,
                max_num_batched_tokens=24) as llm:  # fmt: skip
        assert among(llm, 12, 3) == expected
