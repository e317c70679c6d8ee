"""Which package named vllm this is: ours, the other project of that name, or a mixture of both."""

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import ROOT, Machine
from vllm.version import __version__

NAMES = ("package",)
ORDER = 30
_SUMMARY = "An independent, pure-Python engine"
EXAMPLES = {"source": ".", "folder": "THE_FOLDER"}
LINES = {
    "fine": Line(
        "green", "vllm {version} (the independent engine) in {folder}", "vllm {version}（独立引擎），位于 {folder}"
    ),
    "other": Line(
        "red",
        "the project known as vLLM ({version}) is installed beside ours; scripts may get either of them",
        "同时装有通常所说的 vLLM 项目（{version}）；脚本可能导入其中任意一个",
        "{python} -m pip uninstall -y vllm && {python} -m pip install --force-reinstall --no-deps {source}",
    ),
    "twice": Line(
        "yellow",
        "vllm is installed {count} times: {places}",
        "vllm 被安装了 {count} 次：{places}",
        "{python} -m pip uninstall -y vllm && {python} -m pip install --no-deps {source}   # uninstall once for each",
    ),
    "remains": Line(
        "red",
        "compiled files of the other project lie among ours: {files}",
        "我们的文件夹中混有另一个项目的编译文件：{files}",
        "rm -r {folder} && {python} -m pip install --force-reinstall --no-deps {source}",
    ),
}


def check(machine: Machine) -> Says:
    """Metadata of everything named vllm, and files that cannot be ours."""
    root = Path(ROOT)
    # why: where pip finds "vllm" is the other project, so the way back is a checkout or a wheel of ours.
    source = str(root) if (root / "pyproject.toml").exists() else "vllm-*-py3-none-any.whl"
    words = {"python": sys.executable, "version": __version__, "folder": str(root / "vllm"), "source": source}
    found = _installed()
    others = [one for one in found if not (one.metadata["Summary"] or "").startswith(_SUMMARY)]
    remains = sorted(file.name for file in (root / "vllm").glob("*.so"))
    if others:
        yield "other", {**words, "version": others[0].version}
    elif len(found) > 1:
        yield "twice", {**words, "count": len(found), "places": ", ".join(str(one.locate_file("")) for one in found)}
    if remains:
        yield "remains", {**words, "files": ", ".join(remains[:3])}
    if not remains and not others:
        yield "fine", words


def _installed() -> list[Distribution]:
    """Each distribution named vllm, once; a build folder in a checkout is not an installation."""
    found: dict[str, Distribution] = {}
    for one in distributions(name="vllm"):
        found.setdefault(str(one.locate_file("")), one)
    return list(found.values())
