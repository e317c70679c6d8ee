"""Which Python this is, and whether the shell's `python`, `pip` and `vllm` belong to it."""

import os
import sys
import sysconfig
from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine

NAMES = ("python",)
ORDER = 20
OLDEST, NEWEST = (3, 11), (3, 14)
EXAMPLES = {"mend": ". .venv/bin/activate && hash -r"}
LINES = {
    "fine": Line("green", "Python {version} in {prefix}{kind}", "Python {version}，位于 {prefix}{kind}"),
    "too-old": Line(
        "red",
        "Python {version} is too old; 3.11 to 3.14 are supported",
        "Python {version} 太旧；支持 3.11 至 3.14",
        "python3.12 -m venv .venv && .venv/bin/pip install .",
    ),
    "too-new": Line(
        "yellow",
        "Python {version} is newer than the newest tested one, 3.14",
        "Python {version} 比测试过的最新版本 3.14 还新",
        "python3.14 -m venv .venv && .venv/bin/pip install .",
    ),
    "elsewhere": Line(
        "yellow",
        "several Pythons: {command} in this shell is {other}, but this runs in {prefix}",
        "有多个 Python：当前 shell 中的 {command} 是 {other}，而本程序运行在 {prefix}",
        "{mend}",
    ),
    "managed": Line(
        "yellow",
        "the system's own Python, which refuses pip; use a virtual environment",
        "这是系统自带的 Python，会拒绝 pip；请使用虚拟环境",
        "{python} -m venv .venv && . .venv/bin/activate",
    ),
}


def check(machine: Machine) -> Says:
    """The version, then the shell's commands against this Python."""
    version, prefix = ".".join(map(str, sys.version_info[:3])), sys.prefix
    words = {"version": version, "prefix": prefix, "python": sys.executable}
    in_venv = sys.prefix != sys.base_prefix
    if sys.version_info[:2] < OLDEST:
        yield "too-old", words
    elif sys.version_info[:2] > NEWEST:
        yield "too-new", words
    else:
        yield "fine", {**words, "kind": " (venv)" if in_venv else ""}
    if not in_venv and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        yield "managed", words
    for command in ("python", "pip", "vllm"):
        other = machine.which(command)
        if other is not None and not _is_ours(Path(other)) and not _answers_for_us(machine, command, other):
            yield "elsewhere", {**words, "command": command, "other": other, "mend": _mend(command, in_venv)}
            return


def _is_ours(command: Path) -> bool:
    """A command of this environment: in its folder, or a script that starts this Python, or a link to it."""
    if Path(os.path.realpath(command)) == Path(os.path.realpath(sys.executable)) and sys.prefix == sys.base_prefix:
        return True
    if command.parent == Path(sysconfig.get_path("scripts")) or command.parent == Path(sys.executable).parent:
        return True
    try:
        with command.open("rb") as file:
            first = file.readline(300).decode("utf-8", "replace")
    except OSError:
        return True
    return first.startswith("#!") and sys.executable in first


def _answers_for_us(machine: Machine, command: str, other: str) -> bool:
    """A version manager's stand-in starts the Python that it is set to: ask it."""
    if command == "vllm":
        return Path(other).parent.name == "shims"  # `python` was asked before and is ours
    words = ["-c", "import sys; print(sys.prefix)"] if command == "python" else ["--version"]
    return sys.prefix in machine.run([other, *words], 5.0).out


def _mend(command: str, in_venv: bool) -> str:
    if in_venv:
        return f". {sys.prefix}/bin/activate && hash -r"
    modules = {"vllm": "-m vllm.entrypoints.cli.main", "pip": "-m pip", "python": ""}
    return f"{sys.executable} {modules[command]}   # in place of `{command}`"
