"""The port that a server would take."""

import errno
import socket

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine

NAMES = ("port",)
ORDER = 130
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line("green", "{port} is free", "{port} 空闲"),
    "taken": Line(
        "yellow",
        "another program listens on port {port}",
        "端口 {port} 已被其他程序占用",
        "vllm serve --port {other}   # or see who it is: ss -ltnp 'sport = :{port}'",
    ),
    "refused": Line(
        "yellow",
        "port {port} cannot be taken: {problem}",
        "无法使用端口 {port}：{problem}",
        "vllm serve --port 8000   # ports below 1024 need root",
    ),
}


def check(machine: Machine) -> Says:
    """Take it for a moment."""
    port = machine.port
    try:
        _bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield "taken", {"port": port, "other": _free()}
        else:
            yield "refused", {"port": port, "problem": error.strerror}
        return
    yield "fine", {"port": port}


def _bind(port: int) -> int:
    with socket.socket() as one:
        # why: as servers do, so that a port in its last minute after use counts as free.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        return int(one.getsockname()[1])


def _free() -> int:
    return _bind(0)
