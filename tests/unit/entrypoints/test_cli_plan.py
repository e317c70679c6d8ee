"""`vllm plan` says what would run without torch and without weights."""

import json
import subprocess
import sys
from pathlib import Path

from vllm.entrypoints.cli.main import main
from vllm.models import llama


def test_plan_needs_no_weights_and_no_torch(tmp_path: Path) -> None:
    config = {**llama.TINY, "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = (
        "import sys; from vllm.entrypoints.cli.main import main;"
        f"status = main(['plan', {str(tmp_path)!r}, '--max-model-len', '64']);"
        "sys.exit(status or 7 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "LlamaForCausalLM: 30,432 parameters" in done.stdout and "context 64" in done.stdout


def test_what_cannot_be_is_one_sentence(tmp_path: Path, capsys) -> None:
    assert main(["plan", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_ops_are_printed_with_their_kernels(tmp_path: Path, capsys) -> None:
    config = {**llama.TINY, "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["plan", str(tmp_path), "--max-model-len", "64", "--dtype", "float32", "--ops"]) == 0
    lines = dict(line.split()[:2] for line in capsys.readouterr().out.partition("kernels on cpu")[2].splitlines()[1:])
    assert {"attention", "linear", "rms_norm", "split_heads"} <= set(lines) and "experts" not in lines
    assert lines["embedding"] == "reference"
