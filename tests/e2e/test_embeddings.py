"""Embeddings equal the hidden states of transformers, in ragged batches and chunks, offline and through the client."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import openai
import pytest
import torch

from tests.contract.models import SEED, save
from tests.support.http_server import KEY, serving
from vllm import LLM, EmbeddingRequestOutput, PoolingParams, SamplingParams

BUILTIN = Path(__file__).parents[2] / "vllm" / "builtin"
VOCAB = json.loads((BUILTIN / "config.json").read_text())["vocab_size"]
SIZE = 48
PROMPTS = [[(7 * j + 3 * k) % VOCAB for j in range(length)] for k, length in enumerate((1, 5, 33, 90, 2, 1))]
CHUNKS = {"max_num_batched_tokens": 24, "max_num_seqs": 3}
"""So that prompts share steps and the longer ones come in pieces."""


def network(architecture: str):
    """The bare network of transformers, as embedding models are saved: no head, names without `model.`."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(SEED)
    sizes = {"hidden_size": SIZE, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": VOCAB}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = AutoConfig.for_model(
        architecture, **sizes, **heads, tie_word_embeddings=False, max_position_embeddings=512
    )
    model = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            low, high = (0.5, 1.5) if parameter.dim() == 1 and name.endswith("weight") else (-0.3, 0.3)
            parameter.uniform_(low, high)
    return model


def folder_of(path: Path, architecture: str = "qwen3", mode: str | None = None, normalize: bool = True):
    """(network, folder); with `mode` as sentence-transformers would save it."""
    model = network(architecture)
    save(model, path)
    for file in BUILTIN.glob("tokenizer*"):
        shutil.copy(file, path)
    if mode is not None:
        kind = "sentence_transformers.models."
        modules = [{"type": f"{kind}Transformer", "path": ""}, {"type": f"{kind}Pooling", "path": "1_Pooling"}]
        modules += [{"type": f"{kind}Normalize", "path": "2_Normalize"}] if normalize else []
        (path / "modules.json").write_text(json.dumps(modules))
        (path / "1_Pooling").mkdir()
        said = {
            f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
        }
        (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": SIZE, **said}))
    return model, path


def states(model, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).last_hidden_state[0]


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("qwen") / "model", mode="lasttoken")


@pytest.fixture(scope="module")
def llm(qwen):
    with LLM(str(qwen[1]), dtype="float32", hf_overrides={"is_matryoshka": True}, **CHUNKS) as it:
        yield it


def test_last_tokens_state_in_ragged_batches_and_chunks(qwen, llm):
    outputs = llm.embed(PROMPTS, use_tqdm=False)
    assert all(isinstance(output, EmbeddingRequestOutput) for output in outputs)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        want = unit(states(qwen[0], ids)[-1])
        assert output.prompt_token_ids == ids and output.outputs.hidden_size == SIZE
        assert torch.allclose(torch.tensor(output.outputs.embedding), want, atol=1e-5)


def test_again_from_the_prefix_cache(llm):
    ids = [(11 * j + 5) % VOCAB for j in range(200)]
    first, second = (llm.embed([ids], use_tqdm=False)[0] for _ in range(2))
    assert first.num_cached_tokens == 0 and second.num_cached_tokens > 0
    assert torch.allclose(torch.tensor(first.outputs.embedding), torch.tensor(second.outputs.embedding), atol=1e-6)


def test_encode_gives_tensors_and_states_of_all_tokens(qwen, llm):
    whole = llm.encode(PROMPTS, pooling_task="token_embed", use_tqdm=False)
    for ids, output in zip(PROMPTS, whole, strict=True):
        assert torch.allclose(output.outputs.data, unit(states(qwen[0], ids)), atol=1e-5)
    (one,) = llm.encode({"prompt_token_ids": PROMPTS[2]}, PoolingParams(use_activation=False), use_tqdm=False)
    assert torch.allclose(one.outputs.data, states(qwen[0], PROMPTS[2])[-1], atol=1e-4)


def test_dimensions_text_and_truncation(qwen, llm):
    (short,) = llm.embed([PROMPTS[3]], pooling_params=PoolingParams(dimensions=16), use_tqdm=False)
    assert torch.allclose(torch.tensor(short.outputs.embedding), unit(states(qwen[0], PROMPTS[3])[-1][:16]), atol=1e-5)
    (text,) = llm.embed("The capital of France", use_tqdm=False)
    assert text.prompt_token_ids == llm.get_tokenizer().encode("The capital of France")
    (cut,) = llm.embed([PROMPTS[3]], truncate_prompt_tokens=7, use_tqdm=False)
    assert cut.prompt_token_ids == PROMPTS[3][-7:]
    with pytest.raises(ValueError, match="dimensions must be 1 to 48, got 99"):
        llm.embed([PROMPTS[1]], pooling_params=PoolingParams(dimensions=99), use_tqdm=False)
    assert len(llm.embed(PROMPTS, use_tqdm=False)) == len(PROMPTS)


def test_score_is_the_cosine(qwen, llm):
    found = llm.score({"prompt_token_ids": PROMPTS[2]}, [{"prompt_token_ids": ids} for ids in PROMPTS], use_tqdm=False)
    vectors = [unit(states(qwen[0], ids)[-1]) for ids in PROMPTS]
    for output, vector in zip(found, vectors, strict=True):
        assert output.outputs.score == pytest.approx(float(vectors[2] @ vector), abs=1e-5)
    with pytest.raises(ValueError, match="got 2 and 3"):
        llm.score(["a", "b"], ["a", "b", "c"])


def test_what_an_embedding_model_refuses(llm):
    with pytest.raises(ValueError, match="loaded for embeddings"):
        llm.generate("hello", SamplingParams(max_tokens=1), use_tqdm=False)
    with pytest.raises(ValueError, match="no head for classify"):
        llm.encode(PROMPTS, pooling_task="classify", use_tqdm=False)
    with pytest.raises(ValueError, match="head for classes"):
        llm.classify(["a"])


@pytest.mark.parametrize(("mode", "normalize"), [("mean_tokens", True), ("cls_token", False)])
def test_what_the_folder_says(tmp_path, mode, normalize):
    model, path = folder_of(tmp_path / "model", "llama", mode, normalize)
    with LLM(str(path), dtype="float32", deterministic=True, **CHUNKS) as llm:
        outputs = llm.embed(PROMPTS, use_tqdm=False)
        again = llm.embed(PROMPTS[3:4], use_tqdm=False)
        assert again[0].outputs.embedding == outputs[3].outputs.embedding
    for ids, output in zip(PROMPTS, outputs, strict=True):
        found = states(model, ids)
        want = found.mean(0) if mode == "mean_tokens" else found[0]
        want = unit(want) if normalize else want
        assert torch.allclose(torch.tensor(output.outputs.embedding), want, atol=1e-4)


@pytest.mark.slow
def test_a_batch_file(qwen, tmp_path):
    lines = [{"custom_id": str(i), "url": "/v1/embeddings", "body": {"input": ids}} for i, ids in enumerate(PROMPTS)]
    (tmp_path / "in").write_text("".join(json.dumps({**line, "method": "POST"}) + "\n" for line in lines))
    files = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "run-batch", *files, "--model", str(qwen[1])]
    subprocess.run([*command, "--dtype", "float32"], check=True, timeout=120)
    answers = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    found = {one["custom_id"]: one["response"]["body"]["data"][0]["embedding"] for one in answers}
    for i, ids in enumerate(PROMPTS):
        assert torch.allclose(torch.tensor(found[str(i)]), unit(states(qwen[0], ids)[-1]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_over_two_processes(qwen, split):
    with LLM(str(qwen[1]), dtype="float32", **{split: 2}, **CHUNKS) as llm:
        outputs = llm.embed(PROMPTS, use_tqdm=False)
    for ids, output in zip(PROMPTS, outputs, strict=True):
        assert torch.allclose(torch.tensor(output.outputs.embedding), unit(states(qwen[0], ids)[-1]), atol=1e-5)


def test_prompts_that_wait_for_blocks(qwen):
    long = [[(5 * j + 9 * k) % VOCAB for j in range(60)] for k in range(6)]
    given = {"num_gpu_blocks_override": 7, "block_size": 16, "max_model_len": 80, "enable_prefix_caching": False}
    with LLM(str(qwen[1]), dtype="float32", pooler_config={"pooling_type": "MEAN"}, **given, **CHUNKS) as llm:
        outputs = llm.embed(long, use_tqdm=False)
    for ids, output in zip(long, outputs, strict=True):
        want = unit(states(qwen[0], ids).mean(0))
        assert torch.allclose(torch.tensor(output.outputs.embedding), want, atol=1e-5)


def test_a_model_that_generates_is_asked_for_embeddings(tmp_path):
    model, path = folder_of(tmp_path / "model")
    given = {"dtype": "float32", "tokenizer": str(BUILTIN), **CHUNKS}
    with LLM(str(path), task="embed", pooler_config={"pooling_type": "MEAN", "normalize": False}, **given) as llm:
        (output,) = llm.embed([PROMPTS[2]], use_tqdm=False)
    assert torch.allclose(torch.tensor(output.outputs.embedding), states(model, PROMPTS[2]).mean(0), atol=1e-4)


def test_refusals_before_anything_is_loaded(tmp_path):
    _, path = folder_of(tmp_path / "model", mode="max_tokens")
    with pytest.raises(ValueError, match="pooling_mode_max_tokens"):
        LLM(str(path))
    (path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]))
    with pytest.raises(ValueError, match="Dense behind the network"):
        LLM(str(path), runner="pooling")
    with pytest.raises(ValueError, match="heads for classes"):
        LLM(task="classify")
    with pytest.raises(ValueError, match=r"pooling_type.*one of LAST, MEAN, CLS"):
        LLM(runner="pooling", pooler_config={"pooling_type": "STEP"})
    with LLM() as llm, pytest.raises(ValueError, match="runner='pooling'"):
        llm.embed(["hello"])


def test_the_openai_client(qwen, tmp_path_factory):
    model, path = qwen
    flags = ("--model", str(path), "--dtype", "float32", "--max-num-batched-tokens", "24", "--served-model-name", "e")
    with serving(tmp_path_factory.mktemp("embeddings"), *flags) as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)
        with client:
            answer = client.embeddings.create(model="e", input=PROMPTS)  # asks for base64 and unpacks it
            assert [one.index for one in answer.data] == list(range(len(PROMPTS)))
            for ids, one in zip(PROMPTS, answer.data, strict=True):
                assert torch.allclose(torch.tensor(one.embedding), unit(states(model, ids)[-1]), atol=1e-5)
            assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, PROMPTS))
            floats = client.embeddings.create(model="e", input="The capital of France", encoding_format="float")
            packed = server.post("/v1/embeddings", input="The capital of France", encoding_format="base64")
            raw = base64.b64decode(packed["data"][0]["embedding"])
            assert floats.data[0].embedding == torch.frombuffer(bytearray(raw), dtype=torch.float32).tolist()
            for wrong, words in (({"dimensions": 8}, "is_matryoshka"), ({"encoding_format": "hex"}, "encoding_format")):
                with pytest.raises(openai.BadRequestError, match=words):
                    client.embeddings.create(**{"model": "e", "input": "x", **wrong})
            with pytest.raises(openai.BadRequestError, match="loaded for embeddings"):
                client.completions.create(model="e", prompt="hello")
