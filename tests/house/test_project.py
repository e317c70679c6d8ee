"""The files around the package: requirements, setup script, documents."""

import importlib.util
import re
import subprocess
import tomllib

import pytest

from tools.house.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def load_setup():
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load_setup()


def test_build_requirements_are_the_only_second_list():
    lines = (ROOT / "requirements-build.txt").read_text().split("\n")
    assert [line for line in lines if line] == PROJECT["build-system"]["requires"]
    others = [file for file in TRACKED if re.search(r"requirements.*\.(txt|in)$|(^|/)(uv|poetry)\.lock$|Pipfile", file)]
    assert set(others) <= {"requirements-build.txt"}


def test_torch_range_is_the_executed_one():
    assert setup.torch_requirement() == "torch>=2.11,<2.14"


@pytest.mark.parametrize(
    ("version", "inside"),
    [("2.10.9", False), ("2.11.0", True), ("2.13.0+cpu", True), ("2.13.1", True), ("2.14.0", False), ("3.0.0", False)],
)
def test_range(version, inside):
    assert setup.in_range(version, "torch>=2.11,<2.14") is inside


def test_cpu_build_is_the_newest_in_range():
    listing = "torch (2.15.0)\nAvailable versions: 2.15.0+cpu, 2.14.0, 2.13.1, 2.13.0+cpu, 2.13.0, 2.12.0+cpu\n"
    assert setup.cpu_build(listing, "torch>=2.11,<2.14") == "2.13.0+cpu"
    assert setup.cpu_build("torch (2.15.0)\nAvailable versions: 2.15.0, 2.13.0\n", "torch>=2.11,<2.14") is None
    assert setup.cpu_build("ERROR: no such command", "torch>=2.11,<2.14") is None


def test_without_any_cpu_build_the_size_is_announced(monkeypatch, capsys):
    monkeypatch.setattr(setup, "wants_cpu_build", lambda: True)
    monkeypatch.setattr(setup, "CPU_INDEX", "http://127.0.0.1:9/whl")  # a closed port of this machine
    assert setup.torch_first(["pip"], []) == []
    assert "about 3 GB" in capsys.readouterr().out


def test_setup_does_nothing_the_second_time(monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(setup.sys, "argv", ["setup.py", "test"])
    calls = []

    def run(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.setattr(setup, "wants_cpu_build", lambda: False)
    monkeypatch.setattr(setup, "first_run", lambda: None)
    assert setup.main() == 0
    assert len(calls) == 1
    assert setup.main() == 0
    monkeypatch.setattr(setup.sys, "argv", ["setup.py"])  # fewer extras than installed
    assert setup.main() == 0
    assert len(calls) == 1
    monkeypatch.setattr(setup.sys, "argv", ["setup.py", "dev"])  # more
    assert setup.main() == 0
    assert len(calls) == 2


def test_a_failed_install_is_not_remembered(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(setup.sys, "argv", ["setup.py"])
    monkeypatch.setattr(setup, "wants_cpu_build", lambda: False)
    monkeypatch.setattr(setup.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, ""))
    assert setup.main() == 1
    assert "failed" in capsys.readouterr().err
    assert not setup.STAMP.exists()


def test_a_first_run_that_fails_names_doctor_and_fails_nothing(monkeypatch, capsys):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    seen = []

    def run(command, env, **_):
        seen.append("PYTHONDONTWRITEBYTECODE" in env)
        return subprocess.CompletedProcess(command, len(seen) - 1)

    monkeypatch.setattr(setup.subprocess, "run", run)
    setup.first_run()
    assert capsys.readouterr().err == "" and seen == [False]
    setup.first_run()
    assert "vllm doctor" in capsys.readouterr().err


def run_setup_shell(tmp_path, interpreter):
    """scripts/setup.sh in an empty checkout that finds only `interpreter`, a shell script."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "setup.sh").write_text((ROOT / "scripts" / "setup.sh").read_text())
    fake = tmp_path / "fakepython"
    fake.write_text("#!/bin/sh\n" + interpreter)
    fake.chmod(0o755)
    return subprocess.run(
        ["sh", "scripts/setup.sh"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(fake)},
        capture_output=True,
        text=True,
    )


def test_too_old_a_python_is_one_line(tmp_path):
    done = run_setup_shell(tmp_path, "exit 1\n")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Python 3.11 to 3.14 is needed" in done.stderr


def test_missing_venv_is_one_line(tmp_path):
    # Knows its version, but importing venv or ensurepip fails.
    done = run_setup_shell(tmp_path, 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac\nexit 0\n')
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "apt-get install python3.12-venv" in done.stderr


def test_make_targets_are_short():
    text = (ROOT / "Makefile").read_text()
    targets = ["setup", "serve", "test", "fmt", "check", "gpu", "gpu-deps"]
    targets += ["e2e", "fault", "slow", "bench", "docs", "house", "package"]
    for target in targets:
        assert re.search(rf"^[\w -]*\b{target}\b[\w -]*:", text, re.MULTILINE), target
    for script in re.findall(r"(scripts/\w+\.(?:sh|py))", text):
        assert (ROOT / script).is_file(), script


BARE_INSTALL = re.compile(r"\b(pip|pipx|uv)\s+(install|add)\b[^|#`]*?\s['\"]?vllm(?![\w/-])(?! @)")


def test_documents_never_name_the_other_package_for_install():
    assert BARE_INSTALL.search("pip install -U vllm") and BARE_INSTALL.search('uv pip install "vllm>=1"')
    assert not BARE_INSTALL.search('pip install "vllm @ git+https://x"') and not BARE_INSTALL.search(
        "pip install dist/vllm-1"
    )
    for file in TRACKED:
        if file.endswith((".md", ".toml", ".txt", ".sh")) or file == "Makefile":
            for number, line in enumerate((ROOT / file).read_text("utf-8").splitlines(), start=1):
                assert not BARE_INSTALL.search(line), f"{file}:{number}: {line}"


def test_readme_says_what_it_is_first():
    english = (ROOT / "README.md").read_text("utf-8").splitlines()[:6]
    chinese = (ROOT / "README.zh-CN.md").read_text("utf-8").splitlines()[:6]
    assert "independent" in " ".join(english)
    assert "not affiliated" in " ".join(english)
    assert "独立实现" in "".join(chinese)


def status_rows(file):
    text = (ROOT / file).read_text("utf-8")
    table = text.split("<!-- status:begin -->")[1].split("<!-- status:end -->")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.strip().splitlines()[2:]]


def test_both_readmes_tell_the_same_state():
    words = {"works": "可用", "partly": "部分", "not yet": "尚未"}
    english, chinese = status_rows("README.md"), status_rows("README.zh-CN.md")
    assert [words[row[1]] for row in english] == [row[1] for row in chinese]
    for row in (*english, *chinese):
        assert row[1] not in ("partly", "部分") or row[2], f"{row[0]} does not say what is missing"


def test_links_between_documents_exist():
    for file in TRACKED:
        if file.endswith(".md"):
            text = re.sub(r"```.*?```", "", (ROOT / file).read_text("utf-8"), flags=re.DOTALL)
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
                assert ((ROOT / file).parent / target).exists(), f"{file} links to {target}"


def test_continuous_integration_runs_a_cpu_torch():
    import os

    if "CI" in os.environ:
        import torch

        assert torch.version.cuda is None


def test_every_room_has_a_door():
    doors = sorted((ROOT / "vllm").glob("*/__init__.py"))
    rooms = [path.parent for path in doors if not path.read_text("utf-8").startswith('"""Facade:')]
    assert len(rooms) > 20
    for room in rooms:
        text = (room / "README.md").read_text("utf-8")
        assert len(text.splitlines()) <= 40, f"{room.name}: more than one screen"
        assert text.count("```") == 2, f"{room.name}: one drawing"
        assert max(map(len, text.splitlines())) <= 125, room.name


def test_no_tracked_file_names_a_place_of_one_machine():
    places = re.compile("|".join(["/" + "work/", "/" + "tmp/bash", "/" + "root/"]))
    for file in TRACKED:
        path = ROOT / file
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".sh", ".txt", ".json", ".jsonl", ".yaml", ""}:
            match = places.search(path.read_text("utf-8", errors="replace"))
            assert match is None, f"{file} holds {match[0]}"
