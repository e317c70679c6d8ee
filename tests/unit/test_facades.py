"""Import paths of vLLM that are kept alive: pinned, tiny, and pointing at the real thing."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vllm

FACADES = {
    "vllm.beam_search": {"BeamSearchOutput", "BeamSearchSequence"},
    "vllm.engine.arg_utils": {"EngineArgs", "AsyncEngineArgs"},
    "vllm.engine.async_llm_engine": {"AsyncLLMEngine"},
    "vllm.engine.llm_engine": {"LLMEngine"},
    "vllm.entrypoints.chat_utils": {"resolve_hf_chat_template"},
    "vllm.logger": {"init_logger"},
    "vllm.logprobs": {"Logprob", "PromptLogprobs", "SampleLogprobs"},
    "vllm.lora.request": {"LoRARequest"},
    "vllm.renderers.hf": {"resolve_chat_template"},
    "vllm.sequence": {"Logprob", "RequestMetrics"},
    "vllm.tokenizers": {"get_tokenizer"},
    "vllm.transformers_utils.tokenizer": {"get_tokenizer"},
    "vllm.utils": {"FlexibleArgumentParser", "get_open_port", "random_uuid"},
    "vllm.utils.argparse_utils": {"FlexibleArgumentParser"},
    "vllm.utils.network_utils": {"get_open_port"},
    "vllm.v1.engine.async_llm": {"AsyncLLM"},
    "vllm.v1.engine.exceptions": {"EngineDeadError", "EngineGenerateError"},
    "vllm.v1.engine.llm_engine": {"LLMEngine"},
}
ROOT = Path(vllm.__file__).parent


def module_name(file):
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_facade_is_missing_here():
    users = {module_name(f) for f in ROOT.rglob("*.py") if "util.facade import" in f.read_text("utf-8")}
    assert users == set(FACADES)


@pytest.mark.parametrize("name", sorted(FACADES))
def test_facade(name):
    module = importlib.import_module(name)
    assert len(Path(module.__file__).read_text("utf-8").splitlines()) <= 10
    for attribute in FACADES[name]:
        assert getattr(module, attribute) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


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
