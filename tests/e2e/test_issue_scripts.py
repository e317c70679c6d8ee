"""The scripts that users paste, run as they are in a subprocess; nothing is changed but the model's path."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.opt_folder import cache_layout, write_opt

SCRIPT = """
from vllm import LLM, SamplingParams
prompts = {prompts}
sampling_params = SamplingParams({params})
llm = LLM({model})
outputs = llm.generate(prompts, sampling_params)
for {loop}:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {{prompt!r}}, Generated text: {{generated_text!r}}")
"""
ENGLISH = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]
CHINESE = ["你好，我的名字是", "美国总统是", "法国首都是"]


def run_script(tmp_path: Path, **parts: object) -> list[str]:
    """Run the script in a fresh interpreter; returns its lines."""
    file = tmp_path / "script.py"
    defaults = {"params": "temperature=0.8, top_p=0.95", "loop": "output in outputs", "prompts": ENGLISH}
    file.write_text(SCRIPT.format(**{**defaults, **parts}), "utf-8")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith("Prompt: ")]


def test_built_in_model(tmp_path: Path) -> None:
    prompts = ENGLISH + CHINESE
    lines = run_script(tmp_path, model="", prompts=prompts)
    assert len(lines) == len(prompts)
    assert all(repr(p) in line and not line.endswith("''") for p, line in zip(prompts, lines, strict=True))


@pytest.mark.slow
def test_zip_loop_and_more_tokens(tmp_path: Path) -> None:
    params = "temperature=0.7, top_p=0.95, max_tokens=100"
    assert len(run_script(tmp_path, model="", params=params, loop="prompt, output in zip(prompts, outputs)")) == 4


def test_opt_folder(tmp_path: Path) -> None:
    folder = write_opt(tmp_path / "opt", prefix="model.", hidden=96, layers=2)
    assert len(run_script(tmp_path, model=f"model={str(folder)!r}")) == 4


@pytest.mark.slow  # of the real size; tests/unit/loading/test_resolve_model.py knows every level of a cache
def test_opt_in_a_hub_cache(tmp_path: Path) -> None:
    home = cache_layout(write_opt(tmp_path / "opt", prefix="model."), tmp_path / "hub")
    assert len(run_script(tmp_path, model=f"model={str(home)!r}")) == 4


def test_opt_without_the_model_prefix(tmp_path: Path) -> None:
    folder = write_opt(tmp_path / "bare", prefix="", hidden=96, layers=2)
    assert len(run_script(tmp_path, model=f"model={str(folder)!r}")) == 4
