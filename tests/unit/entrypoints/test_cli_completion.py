"""`vllm completion`: what a shell offers after it has read the script."""

import shutil
import subprocess

import pytest

from vllm.entrypoints.cli.main import main

ASK = """
. {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_vllm vllm "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"; echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    capture = pytest.MonkeyPatch()
    file = tmp_path_factory.mktemp("completion") / "vllm.bash"
    with file.open("w") as out:
        capture.setattr("sys.stdout", out)
        assert main(["completion", "bash"]) == 0
        capture.undo()
    return file


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [("vllm doc", "doctor"), ("vllm serve --max-model", "--max-model-len"), ("vllm serve --dtype bf", "bfloat16")],
)
def test_bash_completes(script, words, offered):
    asked = ASK.format(script=script, words=words)
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=30)
    assert offered in done.stdout.split(), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "doctor" in capsys.readouterr().out
