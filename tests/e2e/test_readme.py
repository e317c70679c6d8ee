"""The README's examples of the server, run as they stand there; only the port is another one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http_server import serving

ROOT = Path(__file__).parents[2]


def examples(file: str) -> list[tuple[str, str]]:
    """(language, code) of each example."""
    text = (ROOT / file).read_text("utf-8").split("<!-- examples:begin -->")[1].split("<!-- examples:end -->")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("readme"), keys=()) as it:
        yield it


def test_both_languages_have_the_same():
    assert examples("README.md") == examples("README.zh-CN.md")


COMMANDS = [
    line for kind, code in examples("README.md") if kind == "sh" for line in code.replace("\\\n", "").splitlines()
]
EXPECTED = ["Paris", '"completed"', "Paris", "巴黎", "Paris", "Paris"]


@pytest.mark.parametrize(("command", "says"), list(zip(COMMANDS, EXPECTED, strict=True)))
def test_commands(server, command: str, says: str):
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not here")
    url = f"http://127.0.0.1:{server.port}"
    command = command.replace("http://127.0.0.1:8000", url)
    command = re.sub(r"^vllm (\w+)", rf"{sys.executable} -m vllm.entrypoints.cli.main \1 --url {url}/v1", command)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = "".join(re.findall(r'"content":"([^"]*)"', done.stdout)) or done.stdout
    assert says in told


@pytest.mark.parametrize(
    ("number", "says"), [(0, "get_weather"), (1, "Paris"), (2, "42")], ids=["openai", "anthropic", "ollama"]
)
def test_programs(server, number: int, says: str):
    program = [code for kind, code in examples("README.md") if kind == "python"][number]
    program = program.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
