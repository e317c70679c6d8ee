"""From a model's name to a folder: paths, the cache's layout, hubs that answer, refuse, or say nothing."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.loading.hub_server import COMMIT, serve
from vllm.errors import ModelNotFoundError, ValidationError
from vllm.loading import hub, modelscope
from vllm.loading.files import wanted
from vllm.loading.resolve import resolve_model

WAYS_OUT = ("local folder", "HF_ENDPOINT", "VLLM_USE_MODELSCOPE", "built-in")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable of the machine counts, and the cache is ours."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "VLLM_", "MODELSCOPE", "TRANSFORMERS")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub"


def model_at(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def cache_at(root: Path, *commits: str, ref: str | None = None) -> Path:
    model = root / "models--facebook--opt-125m"
    for commit in commits:
        model_at(model / "snapshots" / commit)
    if ref is not None:
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(ref)
    return model


def test_local_folder(tmp_path: Path) -> None:
    assert resolve_model(str(model_at(tmp_path / "m"))) == tmp_path / "m"


def test_relative_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_at(tmp_path / "facebook" / "opt-125m")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("facebook/opt-125m") == Path("facebook/opt-125m")


def test_no_model_is_the_built_in_one() -> None:
    assert resolve_model(None).name == "builtin"


@pytest.mark.parametrize("level", [".", "models--facebook--opt-125m", "models--facebook--opt-125m/snapshots", "up"])
def test_every_level_of_the_cache(tmp_path: Path, level: str) -> None:
    cache_at(tmp_path / "hub", "aaa", "bbb", ref="bbb")
    path = tmp_path if level == "up" else tmp_path / "hub" / level
    assert resolve_model(str(path)) == tmp_path / "hub/models--facebook--opt-125m/snapshots/bbb"


def test_revision_picks_the_snapshot(tmp_path: Path) -> None:
    model = cache_at(tmp_path, "aaa", "bbb", ref="bbb")
    assert resolve_model(str(model), revision="aaa").name == "aaa"
    with pytest.raises(ModelNotFoundError, match=r"no snapshot 'ccc'.*aaa, bbb"):
        resolve_model(str(model), revision="ccc")


def test_single_snapshot_needs_no_ref(tmp_path: Path) -> None:
    assert resolve_model(str(cache_at(tmp_path, "aaa"))).name == "aaa"


def test_several_snapshots_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"2 snapshots \(aaa, bbb\)"):
        resolve_model(str(cache_at(tmp_path, "aaa", "bbb")))


def test_dangling_ref_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="refs/main names the snapshot ccc"):
        resolve_model(str(cache_at(tmp_path, "aaa", ref="ccc")))


def test_several_models_are_named(tmp_path: Path) -> None:
    cache_at(tmp_path, "aaa")
    model_at(tmp_path / "models--a--b" / "snapshots" / "x")
    with pytest.raises(ModelNotFoundError, match=r"2 models.*models--a--b, models--facebook--opt-125m"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_broken_links_are_named(tmp_path: Path, name: str) -> None:
    snapshot = cache_at(tmp_path, "aaa") / "snapshots" / "aaa"
    (snapshot / name).unlink()
    (snapshot / name).symlink_to("../../blobs/gone")
    with pytest.raises(ModelNotFoundError, match=rf"1 broken link \({name}\)"):
        resolve_model(str(tmp_path))


def test_links_that_nobody_needs_may_be_broken(tmp_path: Path) -> None:
    snapshot = cache_at(tmp_path, "aaa") / "snapshots" / "aaa"
    for name in ("README.md", "flax_model.msgpack", "pytorch_model.bin"):
        (snapshot / name).symlink_to("../../blobs/gone")
    assert resolve_model(str(tmp_path)) == snapshot


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("/no/such/folder", "is not there"),
        ("./nowhere", "is not there"),
        ("a/b/c", "is not there"),
        ("what is this?", "is no folder here"),
        ("../no-such-folder-here", "is not there"),
    ],
)
def test_what_is_neither_path_nor_id(model: str, text: str) -> None:
    with pytest.raises(ModelNotFoundError, match=text):
        resolve_model(model)


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("x")
    with pytest.raises(ModelNotFoundError, match="GGUF"):
        resolve_model(str(tmp_path / "m.gguf"))


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


def test_revision_is_checked() -> None:
    with pytest.raises(ValidationError, match="revision"):
        resolve_model("a/b", revision="x; rm")


def files(**more: bytes) -> dict[str, bytes]:
    return {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"w", "run.py": b"evil", **more}


def test_fetches_only_what_is_needed(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    with serve() as server:
        server.repos["a/b"] = files(**{"pytorch_model.bin": b"again", "onnx/model.onnx": b"o", "README.md": b"r"})
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        folder = resolve_model("a/b")
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
        assert folder == clean / "models--a--b" / "snapshots" / COMMIT

        server.asked.clear()
        assert resolve_model("a/b") == folder
        assert [a.split("?")[0] for a in server.asked] == ["GET /api/models/a/b/revision/main"]


def test_tokenizer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        server.repos["a/b"] = files()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        folder = resolve_model("a/b", weights=False)
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "tokenizer.json"]


def test_download_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve() as server:
        server.repos["a/b"] = files()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        folder = resolve_model("a/b", download_dir=str(tmp_path / "there"))
        assert folder.is_relative_to(tmp_path / "there")


def test_gated_model_asks_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        server.repos["meta/llama"] = files()
        server.gated.add("meta/llama")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(
            ModelNotFoundError, match=r"gated or private.*no token was sent.*HF_TOKEN.*licence"
        ) as caught:
            resolve_model("meta/llama")
        assert f"{server.url}/meta/llama" in str(caught.value)
        with pytest.raises(ModelNotFoundError, match="the token that was sent has no access"):
            resolve_model("meta/llama", token="bad")
        monkeypatch.setenv("HF_TOKEN", "good")
        assert (resolve_model("meta/llama") / "config.json").exists()


def test_unknown_model_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        server.repos["a/b"] = files()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(ModelNotFoundError, match="gated or private"):
            resolve_model("no/such")
        with pytest.raises(ModelNotFoundError, match="knows no model no/such"):
            resolve_model("no/such", token="good")
        with pytest.raises(ModelNotFoundError, match="no revision 'v9'"):
            resolve_model("a/b", revision="v9")


def test_ill_hub_gives_the_ways_out_or_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        server.repos["a/b"] = files()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        folder = resolve_model("a/b")
        # an ill hub, and portals or proxies that answer in its place
        for server.status in (503, 429, 200, 403, 404):
            assert resolve_model("a/b") == folder
            with pytest.raises(ModelNotFoundError, match=str(server.status)) as caught:
                resolve_model("c/d")
            assert all(way in str(caught.value) for way in WAYS_OUT)


def test_offline(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set") as caught:
        resolve_model("facebook/opt-125m")
    assert all(way in str(caught.value) for way in WAYS_OUT)
    cache_at(clean, "aaa", ref="aaa")
    assert resolve_model("facebook/opt-125m").name == "aaa"
    (clean / "models--facebook--opt-125m/snapshots/aaa/model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="not \\(whole\\)"):
        resolve_model("facebook/opt-125m")


def test_silent_hub_fails_in_time(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    """A socket that takes the connection and never says a word; the whole call stays under ten seconds."""
    assert hub.DEADLINE < 9
    monkeypatch.setattr(hub, "DEADLINE", 2.0)
    with socket.socket() as ear:
        ear.bind(("127.0.0.1", 0))
        ear.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{ear.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(ModelNotFoundError, match="cannot be reached") as caught:
            resolve_model("facebook/opt-125m")
        assert time.monotonic() - started < hub.DEADLINE + 1
        assert all(way in str(caught.value) for way in WAYS_OUT)
        cache_at(clean, "aaa", ref="aaa")
        monkeypatch.setattr(hub, "DEADLINE_CACHED", 0.5)
        assert resolve_model("facebook/opt-125m").name == "aaa"


def test_dropped_packets_fail_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address nobody routes (TEST-NET-1), and one whose full queue drops every further connection."""
    monkeypatch.setattr(hub, "DEADLINE", 2.0)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        try:
            for address in ("192.0.2.1", f"127.0.0.1:{full.getsockname()[1]}"):
                monkeypatch.setenv("HF_ENDPOINT", f"http://{address}")
                started = time.monotonic()
                with pytest.raises(ModelNotFoundError, match="cannot be reached"):
                    resolve_model("facebook/opt-125m")
                assert time.monotonic() - started < 8, "without a deadline it takes two minutes"
        finally:
            for filler in fillers:
                filler.close()


def test_modelscope_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", None)
    with pytest.raises(ModelNotFoundError, match="pip install modelscope"):
        resolve_model("qwen/qwen")


def test_modelscope_fetches_one_kind_of_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def snapshot_download(model: str, **given: object) -> str:
        calls.append(given)
        return str(model_at(tmp_path / "ms"))

    fake = ModuleType("modelscope.hub.snapshot_download")
    fake.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", ModuleType("modelscope"))
    monkeypatch.setitem(sys.modules, "modelscope.hub", ModuleType("modelscope.hub"))
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", fake)
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    monkeypatch.setattr(modelscope, "get", lambda url, seconds: None)
    assert resolve_model("qwen/qwen", revision="v1") == tmp_path / "ms"
    assert "*.safetensors" in calls[-1]["allow_patterns"] and "*.bin" not in calls[-1]["allow_patterns"]
    assert calls[-1]["revision"] == "v1" and calls[-1]["local_files_only"] is False


def test_wanted_files() -> None:
    names = ["config.json", "merges.txt", "vocab.json", "pytorch_model.bin", "flax_model.msgpack", "training_args.bin"]
    assert wanted(names) == ["config.json", "merges.txt", "vocab.json", "pytorch_model.bin"]
    mistral = ["config.json", "consolidated.safetensors", "model-00001-of-00002.safetensors", "tekken.json"]
    index = "model.safetensors.index.json"
    assert wanted([*mistral, index]) == ["config.json", "tekken.json", "model-00001-of-00002.safetensors", index]


def test_needs_no_torch() -> None:
    """The front resolves names too, and it must start without torch."""
    code = "import sys, vllm.loading.resolve; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
