"""A C compiler and Python's headers, which Triton needs for its launchers; nobody needs them without a GPU."""

import os
import shlex
import sys
import sysconfig
import tempfile
from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env

NAMES = ("compiler",)
ORDER = 80
# why: Triton wants the name of one program, so pip's compiler is wrapped in a script.
_ZIG = (
    "{python} -m pip install ziglang && mkdir -p ~/.local/bin && "
    "printf '#!/bin/sh\\nexec {python} -m ziglang cc \"$@\"\\n' > ~/.local/bin/zigcc && "
    "chmod +x ~/.local/bin/zigcc && export CC=~/.local/bin/zigcc"
)
EXAMPLES = {"zig": _ZIG, "short": "3.12"}
LINES = {
    "not-needed": Line("green", "no C compiler is needed without a GPU", "没有 GPU 时不需要 C 编译器"),
    "fine": Line("green", "{cc} (Triton's launchers)", "{cc}（供 Triton 使用）"),
    "missing": Line(
        "red",
        "no C compiler: Triton cannot build the launchers of GPU kernels",
        "没有 C 编译器：Triton 无法构建 GPU 内核的启动代码",
        "{zig}",
        gpu=True,
    ),
    "broken": Line(
        "red",
        "the C compiler {cc} does not work: {problem}",
        "C 编译器 {cc} 无法工作：{problem}",
        "unset CC; {zig}",
        gpu=True,
    ),
    "no-headers": Line(
        "red",
        "Python.h is missing, which Triton's launchers include",
        "缺少 Triton 启动代码所需的 Python.h",
        "sudo apt-get install python{short}-dev   # without root: a Python from conda or uv brings its headers",
        gpu=True,
    ),
}


def check(machine: Machine) -> Says:
    """Compile one line that includes Python.h."""
    if not machine.nvidia.gpus and not machine.torch.available:
        yield "not-needed", {}
        return
    named = env.text("CC")
    cc = named or machine.which("gcc", "clang", "cc")
    words = {"cc": cc, "zig": _ZIG.format(python=sys.executable), "short": ".".join(map(str, sys.version_info[:2]))}
    if cc is None:
        yield "missing", words
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "x.c"
        source.write_text("#include <Python.h>\nint x(void) { return 0; }\n")
        include, made = sysconfig.get_path("include"), os.path.join(folder, "x.o")
        # why: a compiler's first run can take seconds (zig builds its own library then).
        ran = machine.run([*shlex.split(cc), "-c", str(source), f"-I{include}", "-o", made], 60.0)
        if "Python.h" in ran.out + ran.err and ran.status != 0:
            yield "no-headers", words
        elif ran.status != 0 or not os.path.exists(made):
            yield "broken", {**words, "problem": ran.last_line or f"exit status {ran.status}"}
        else:
            yield "fine", words
