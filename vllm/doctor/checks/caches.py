"""Folders that must take files: temporary files, models, compiled kernels; and the space in them."""

import shutil
import tempfile
from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env
from vllm.util.arith import human_bytes

NAMES = ("caches",)
ORDER = 110
ROOM = 10 << 30
EXAMPLES = {"variable": "HF_HUB_CACHE", "name": "huggingface"}
LINES = {
    "fine": Line("green", "writable; {free} free for models in {folder}", "可写；{folder} 中可存放模型的空间为 {free}"),
    "no-tmp": Line(
        "red",
        "no temporary folder can be written: {problem}",
        "没有可写的临时文件夹：{problem}",
        "mkdir -p ~/tmp && export TMPDIR=~/tmp   # in a container: docker run --tmpfs /tmp ...",
    ),
    "read-only": Line(
        "yellow",
        "{what} cannot be written: {folder} ({problem})",
        "{what_zh}不可写：{folder}（{problem}）",
        "export {variable}=/tmp/{name}",
    ),
    "full": Line(
        "yellow",
        "only {free} free for {what} in {folder}",
        "{folder} 中{what_zh}的可用空间仅 {free}",
        "export {variable}=/a/larger/disk   # or: hf cache prune",
    ),
}


def check(machine: Machine) -> Says:
    """Write a nameless file into each folder, or into the nearest one above it that exists."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        yield "no-tmp", {"problem": error.strerror}
        return
    is_fine, hub = True, _hub()
    folders = [
        ("the model cache", "模型缓存", hub, "HF_HUB_CACHE", "huggingface"),
        ("vllm's cache", "vllm 的缓存", _ours(), "VLLM_CACHE_ROOT", "vllm"),
    ]
    if machine.nvidia.gpus:
        folders.append(("the kernel cache", "内核缓存", _triton(), "TRITON_CACHE_DIR", "triton"))
    for what, what_zh, folder, variable, name in folders:
        words = {"what": what, "what_zh": what_zh, "folder": folder, "variable": variable, "name": name}
        problem, free = _try(folder)
        if problem:
            yield "read-only", {**words, "problem": problem}
        elif free < (ROOM if variable == "HF_HUB_CACHE" else 1 << 30):
            yield "full", {**words, "free": human_bytes(free)}
        else:
            continue
        is_fine = False
    if is_fine:
        yield "fine", {"folder": hub, "free": human_bytes(_try(hub)[1])}


def _try(folder: Path) -> tuple[str, int]:
    """(why nothing can be written there or empty, free bytes)."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there):
            return "", shutil.disk_usage(there).free
    except OSError as error:
        return error.strerror or str(error), 0


def _cache() -> Path:
    return Path(env.text("XDG_CACHE_HOME") or Path(env.text("HOME") or "~").expanduser() / ".cache")


def _hub() -> Path:
    home = Path(env.text("HF_HOME") or _cache() / "huggingface")
    return Path(env.text("HF_HUB_CACHE") or home / "hub").expanduser()


def _ours() -> Path:
    return Path(env.text("VLLM_CACHE_ROOT") or _cache() / "vllm").expanduser()


def _triton() -> Path:
    home = Path(env.text("HOME") or "~").expanduser()
    return Path(env.text("TRITON_CACHE_DIR") or home / ".triton" / "cache").expanduser()
