"""Every code block of every document runs as it stands there, but for ports and addresses: `make docs`.

Python blocks are scripts; shell blocks run line by line in an empty folder with `vllm` on the PATH, a server of the
built-in model, and a hub that holds it under the names that the documents use. A line that serves is started, asked
for its health, and ended. What cannot run says why (`not run`), and `test_what_does_not_run` lists it.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.clean_env import checkout, clean_env
from tests.support.documents import LANGUAGES, Block, all_blocks
from tests.support.http_server import Running, serving, wait_for
from tests.unit.loading.hub_server import Hub
from tests.unit.loading.hub_server import serve as serve_hub
from tools.house.source import ROOT

BLOCKS = all_blocks()
HUB_NAMES = ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")


def of(*languages: str, clean: bool = False) -> list[object]:
    """The blocks of a language that run."""
    return [
        pytest.param(b, id=b.id)
        for b in BLOCKS
        if b.language in languages
        and b.mark("not run") is None
        and b.mark("replay") is None
        and (b.mark("clean environment") is not None) == clean
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("documents"), keys=()) as it:
        yield it


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    files = {
        p.name: p.read_bytes() for p in (ROOT / "vllm" / "builtin").iterdir() if p.suffix in (".json", ".safetensors")
    }
    files["chat_template.jinja"] = (ROOT / "tools/builtin_model/data/chat_template.jinja").read_bytes()
    with serve_hub() as it:
        for name in HUB_NAMES:
            it.repos[name] = files
        yield it


class Sandbox:
    """An empty folder, and an environment in which the documents' names work."""

    def __init__(self, folder: Path, port: int, hub_url: str) -> None:
        self.folder, self.port = folder, port
        self._command(folder / "bin" / "vllm", "-m", "vllm.entrypoints.cli.main")
        for name in ("python", "python3"):
            self._command(folder / "bin" / name)
        self.work = folder / "work"
        self._command(self.work / ".venv" / "bin" / "vllm", "-m", "vllm.entrypoints.cli.main")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "VLLM_")) and k != "PYTHONPATH"}
        self.environment = {
            **kept,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "HF_HOME": str(folder / "home" / "huggingface"),
            "HF_ENDPOINT": hub_url,
            "OMP_NUM_THREADS": "1",
        }

    def _command(self, path: Path, *words: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {" ".join(words)} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def here(self, code: str) -> str:
        """The code with this sandbox's port in place of the documents'."""
        code = re.sub(r"(127\.0\.0\.1|localhost):8000", rf"\1:{self.port}", code).replace(
            "--port 8000", f"--port {self.port}"
        )
        return re.sub(
            r"^(vllm (?:chat|complete)\b)", rf"\1 --url http://127.0.0.1:{self.port}/v1", code, flags=re.MULTILINE
        )

    def run(self, *words: str) -> str:
        """Run a command; what it printed, or a failure with it."""
        done = subprocess.run(
            words,
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (
            f"{words[-1]}\nleft with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done.stdout + done.stderr

    def start(self, line: str) -> str:
        """Run a line that serves until it is healthy, then end it as an operator would."""
        line += "" if "--port" in line else " --port 0"
        log = self.folder / "serve.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {line}"] if "=" not in line.split()[0] else ["sh", "-c", line],
                **{"cwd": self.work, "env": self.environment, "stdout": out, "stderr": out, "start_new_session": True},
            )
        try:
            wait_for(lambda: "Ready: " in log.read_text() or process.poll() is not None, 60, f"{line}: readiness")
            assert process.poll() is None, log.read_text()
            port = re.search(r"Ready: .*?:(\d+)", log.read_text())[1]
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            status = process.wait(30)
        assert status in (0, -signal.SIGTERM), log.read_text()
        return log.read_text()


@pytest.fixture(scope="module")
def sandboxes(server: Running, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sandbox]:
    """One sandbox for each document: its blocks are read one after the other."""
    made: dict[str, Sandbox] = {}
    for block in BLOCKS:
        if block.file not in made:
            made[block.file] = Sandbox(tmp_path_factory.mktemp("sandbox"), server.port, hub.url)
    return made


def lines_of(code: str) -> list[str]:
    """The commands of a shell block; what is continued, quoted or a here-document stays together."""
    found, part = [], ""
    for line in code.replace("\\\n", " ").splitlines():
        part = f"{part}\n{line}" if part else line
        is_open = "<<" in part and not re.search(r"^EOF$", part, re.MULTILINE)
        if not is_open and subprocess.run(["sh", "-n", "-c", part], capture_output=True).returncode == 0:
            found.append(part)
            part = ""
    assert not part, f"this is no whole command: {part}"
    return [line for line in found if line.strip() and not line.lstrip().startswith("#")]


def says(block: Block, told: str) -> None:
    missing = [word for word in block.words if word not in told]
    assert not missing, f"{missing} not in: {told[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("block", of("python"))
def test_python_block_runs(block: Block, sandboxes: dict[str, Sandbox], tmp_path: Path) -> None:
    sandbox, script = sandboxes[block.file], tmp_path / "script.py"
    script.write_text(sandbox.here(block.code))
    told = sandbox.run("python", str(script))
    assert told.strip(), "a block shows something"
    says(block, told)


@pytest.mark.slow
@pytest.mark.parametrize("block", of("sh"))
def test_shell_block_runs(block: Block, sandboxes: dict[str, Sandbox]) -> None:
    sandbox, told, script = sandboxes[block.file], "", ""
    for line in [*lines_of(sandbox.here(block.code)), ""]:
        serves = re.match(r"(\w+=\S+ )*(\.venv/bin/)?vllm serve\b", line) is not None
        if script and (serves or not line):
            told, script = told + sandbox.run("sh", "-ec", script), ""
        if serves:
            told += sandbox.start(line.split("#")[0].strip())
        else:
            script += f"{line}\n" if line else ""
    says(block, told)


@pytest.mark.slow
@pytest.mark.parametrize("block", of("sh", clean=True))
def test_block_runs_in_a_clean_environment(block: Block, tmp_path: Path) -> None:
    """As for `tests/e2e/test_old_ways.py`: dependencies count as installed, the package does not."""
    if "uv " in block.code and shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        assert not os.environ.get("CI"), "uv is missing; CI installs it"
        pytest.skip("uv is missing")
    tree = checkout(tmp_path / "tree")
    told = ""
    for number, line in enumerate(lines_of(block.code)):
        env = clean_env(tmp_path / f"env{number}")
        if "dist/" in line:
            env.run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", ".", cwd=tree)
        told += env.run("sh", "-ec", re.sub(r"^pip ", f"{env.python} -m pip ", line), cwd=tree)
        told += env.run(env.python, "-c", "import vllm; print('works', vllm.__version__)", cwd=tmp_path)
    says(block, told)


@pytest.mark.parametrize("block", of("json", "yaml", "toml", "ini"))
def test_data_block_is_well_formed(block: Block) -> None:
    read = {"json": json.loads, "yaml": lambda text: list(yaml.safe_load_all(text)), "toml": tomllib.loads}
    if block.language == "ini":
        import configparser

        parser = configparser.ConfigParser()
        parser.read_string(block.code)
        assert parser.sections()
    else:
        assert read[block.language](block.code)


NOT_RUN = {
    "README.md": 3,
    "README.zh-CN.md": 3,
    "docs/offline.md": 1,
    "docs/performance.md": 1,
    "docs/quickstart.md": 1,
    "docs/quickstart.zh-CN.md": 1,
    "docs/serving.md": 1,
}
"""File -> blocks of it that do not run. A new one is a diff here, on purpose."""


def test_what_does_not_run() -> None:
    """Each says why; there are no others."""
    found = [b for b in BLOCKS if b.mark("not run") is not None]
    print(*(f"{b.id}: {b.mark('not run')}" for b in found), sep="\n")
    assert all(len(b.mark("not run") or "") > 20 for b in found), "the reason is a sentence"
    counted = {b.file: sum(x.file == b.file for x in found) for b in found}
    assert counted == NOT_RUN
    assert not [b.id for b in BLOCKS if b.language not in LANGUAGES], "a language that no test runs"


def test_both_languages_run_the_same() -> None:
    """A page and its Chinese twin have the same shell blocks; their comments are another matter."""
    for file in {b.file for b in BLOCKS if b.file.endswith(".zh-CN.md")}:
        twin = file.replace(".zh-CN", "")
        mine, theirs = (
            [_bare(b.code) for b in BLOCKS if b.file == name and b.language == "sh"] for name in (file, twin)
        )
        assert mine == theirs, f"{file} and {twin}"


def _bare(code: str) -> str:
    return re.sub(r"\s*#.*", "", code).replace(" --lang zh", "")
