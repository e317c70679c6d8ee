"""`vllm pull|list|show|rm` against a hub in all its moods: slow, cut off, busy, closed, wrong."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pty
import random
import struct
import subprocess
import sys
import tarfile
import termios
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.loading.hub_server import Hub, serve
from tools.house.source import ROOT
from vllm.entrypoints.cli.main import main
from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading import inventory
from vllm.loading import pull as pulling
from vllm.loading.pull import pull
from vllm.loading.verify import wrong_files

WEIGHTS = random.Random(1).randbytes(300_000)
CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "vocab_size": 8}).encode()
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{}", "code.py": b"boom()"}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of the machine counts, the caches are ours, and nobody waits."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "VLLM_", "MODELSCOPE")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setattr(pulling.time, "sleep", lambda seconds: None)
    return tmp_path / "home" / "hub"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as it:
        it.repos["facebook/opt-125m"] = dict(FILES)
        monkeypatch.setenv("HF_ENDPOINT", it.url)
        yield it


def test_pull_list_show_rm(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "facebook/opt-125m"]) == 0
    said = capsys.readouterr().out
    assert "every hash right" in said and "vllm serve facebook/opt-125m" in said
    hub.status = 500  # from here on nobody asks it
    assert main(["list"]) == 0
    assert "facebook/opt-125m" in (said := capsys.readouterr().out) and "whole" in said and "main 01234567" in said
    assert main(["list", "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert 0 <= item["size"] - sum(len(body) for name, body in FILES.items() if name != "code.py") < 100
    assert main(["show", "facebook/opt-125m", "--verify"]) == 0
    assert "every hash is right" in capsys.readouterr().out
    assert main(["rm", "facebook/opt-125m"]) == 2  # nobody to ask
    assert "--yes" in capsys.readouterr().err
    assert main(["rm", "--yes", "facebook/opt-125m"]) == 0
    assert not list(cache.glob("models--*"))
    assert main(["rm", "--yes", "facebook/opt-125m"]) == 2


def test_a_slow_hub_is_waited_for_and_a_terminal_shows_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    """Also from a web server. In a log, where nobody watches, there is no bar."""
    hub.slow = 0.3
    hub.plain = {"/m/config.json": CONFIG, "/m/model.safetensors": WEIGHTS}
    for number, name in enumerate(("facebook/opt-125m", f"{hub.url}/m/")):
        for where in ("terminal", "log"):
            home = {"HF_HOME": str(tmp_path / f"{where}{number}")}
            said = _pull_in(where, name, {**os.environ, **home, "PYTHONPATH": str(ROOT)})
            assert ("100%|" in said) == (where == "terminal"), said
            assert "every hash right" in said or "Now: vllm serve" in said, said


def _pull_in(where: str, name: str, environment: dict[str, str]) -> str:
    """What `vllm pull` writes, on a pseudo-terminal or into a pipe."""
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "pull", name]
    if where == "log":
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a bar needs columns
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while piece := os.read(ours, 65536):
                said += piece
    os.close(ours)
    assert process.returncode == 0, said
    return said.decode()


def test_cut_off_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut = 2
    _, folder = pull("facebook/opt-125m")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert any(int(r.removeprefix("bytes=").rstrip("-")) > 0 for r in hub.ranges), "it began again"


def test_busy_hub_is_asked_again(hub: Hub) -> None:
    hub.busy = 4
    assert (pull("facebook/opt-125m")[1] / "config.json").read_bytes() == CONFIG


def test_hub_that_stays_busy(hub: Hub) -> None:
    hub.busy = 10_000
    with pytest.raises(ModelNotFoundError, match="status 429"):
        pull("facebook/opt-125m")
    assert 10_000 - hub.busy == pulling.ATTEMPTS


def test_wrong_content_is_fetched_again(hub: Hub) -> None:
    hub.spoil = 1
    _, folder = pull("facebook/opt-125m")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_wrong_content_twice_is_removed(hub: Hub, cache: Path) -> None:
    hub.spoil = 9
    with pytest.raises(ModelLoadError, match=r"model\.safetensors arrived twice with content that does not fit"):
        pull("facebook/opt-125m")
    assert not any(file.stat().st_size == len(WEIGHTS) for file in cache.rglob("*") if file.is_file())


@pytest.mark.parametrize("status", [401, 403])
def test_gated(hub: Hub, status: int) -> None:
    hub.gated.add("facebook/opt-125m")
    with pytest.raises(ModelNotFoundError, match="HF_TOKEN"):
        pull("facebook/opt-125m")
    assert pull("facebook/opt-125m", token="good")[1].is_dir()


def test_unknown(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"does not exist|knows no model"):
        pull("facebook/opt-126m", token="good")
    with pytest.raises(ModelNotFoundError, match="no revision 'nope'"):
        pull("facebook/opt-125m", revision="nope")


def test_no_space(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm.loading.hub.shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(ModelLoadError, match=r"needs 293\.\d KiB more .* 1000 B are free"):
        pull("facebook/opt-125m")


def test_page_of_a_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT")
    name, folder = pull(f"{hub.url}/facebook/opt-125m/tree/main")
    assert name == "facebook/opt-125m" and (folder / "config.json").exists()


def archive_of(kind: str) -> bytes:
    out = io.BytesIO()
    members = {f"opt/{name}": body for name, body in FILES.items()} | {"../evil.json": b"{}", "opt/sub/x.json": b"{}"}
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as file:
            for name, body in members.items():
                file.writestr(name, body)
    else:
        with tarfile.open(fileobj=out, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, body in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archive(hub: Hub, kind: str, cache: Path) -> None:
    body = hub.plain[f"/files/opt.{kind}"] = archive_of(kind)
    hub.cut = 1
    name, folder = pull(f"{hub.url}/files/opt.{kind}#sha256={hashlib.sha256(body).hexdigest()}")
    assert name == f"{hub.url.removeprefix('http://').replace(':', '-')}/opt"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert hub.ranges and not wrong_files(folder)
    assert not (cache / ".downloads").exists() or not list((cache / ".downloads").iterdir())


def test_archive_with_another_hash(hub: Hub) -> None:
    hub.plain["/opt.zip"] = archive_of("zip")
    with pytest.raises(ModelLoadError, match="does not have the SHA-256"):
        pull(f"{hub.url}/opt.zip#sha256={'0' * 64}")


def test_folder_of_a_web_server(hub: Hub) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    files = {"config.json": CONFIG, "model.safetensors.index.json": index, "tokenizer.json": b"{}"}
    files |= {"model-1.safetensors": WEIGHTS, "model-2.safetensors": WEIGHTS[::-1]}
    hub.plain = {f"/static/models/opt/{name}": body for name, body in files.items()}
    hub.cut, hub.busy = 1, 0
    name, folder = pull(f"{hub.url}/static/models/opt/", name="my/opt")
    assert name == "my/opt" and {p.name for p in folder.iterdir()} == set(files)
    assert (folder / "model-2.safetensors").read_bytes() == WEIGHTS[::-1]


def test_address_without_a_model(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        pull(f"{hub.url}/nothing/at/all/")


def test_folder_is_served_by_its_name_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.loading.resolve import resolve_model

    source = tmp_path / "my model"
    source.mkdir()
    for file, body in FILES.items():
        (source / file).write_bytes(body)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    name, folder = pull(str(source))
    assert name == "local/my-model" and resolve_model(name) == folder
    (item,) = inventory.held()
    assert item.origin == str(source) and item.is_whole


def test_half_a_model_is_said(hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = pull("facebook/opt-125m")
    (folder / "model.safetensors").resolve().write_bytes(WEIGHTS[:-1] + b"?")
    assert main(["show", "facebook/opt-125m", "--verify"]) == 1
    assert "wrong or missing: model.safetensors" in capsys.readouterr().out
    (folder / "model.safetensors").resolve().unlink()
    assert main(["list"]) == 0
    assert "part" in capsys.readouterr().out
    pull("facebook/opt-125m")
    assert main(["show", "facebook/opt-125m", "--verify"]) == 0


def test_rm_of_one_revision_keeps_what_others_use(cache: Path) -> None:
    home = cache / "models--a--b"
    for commit, files in {"1" * 40: {"config.json": "c", "x": "1"}, "2" * 40: {"config.json": "c", "x": "2"}}.items():
        (home / "snapshots" / commit).mkdir(parents=True)
        (home / "blobs").mkdir(exist_ok=True)
        for name, blob in files.items():
            (home / "blobs" / blob).write_text(blob)
            (home / "snapshots" / commit / name).symlink_to(f"../../blobs/{blob}")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("2" * 40)
    item = inventory.find("a/b")
    with pytest.raises(ModelNotFoundError, match="no revision 'zzz'"):
        inventory.remove(item, "zzz")
    assert inventory.remove(item, "111111") == 1
    assert sorted(p.name for p in (home / "blobs").iterdir()) == ["2", "c"]
    inventory.remove(inventory.find("a/b"), "main")
    assert not home.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_rm_of_what_is_open(hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    _, folder = pull("facebook/opt-125m")
    with (folder / "model.safetensors").open("rb") as file:
        reader = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[file.fileno()])
    try:
        assert main(["rm", "--yes", "facebook/opt-125m"]) == 2
        assert f"in use by process {reader.pid}" in capsys.readouterr().err
    finally:
        reader.communicate(b"\n")
    assert main(["rm", "--yes", "facebook/opt-125m"]) == 0
