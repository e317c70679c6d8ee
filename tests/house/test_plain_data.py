"""Only plain data crosses between processes and comes out of files: nothing that is read can run code."""

import ast
import os
import pickle
import struct
from pathlib import Path

import msgspec
import pytest

from vllm.engine import wire
from vllm.executor import frames

ROOT = Path(__file__).parents[2]
CODE_IN_DATA = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "shelve"),
    *("multiprocessing", "torch.multiprocessing", "xmlrpc"),
}
CALLS = {
    *("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list"),
    *("send_object_list", "recv_object_list", "send_pyobj", "recv_pyobj"),
}


GUARDS = ("weights_only", "allow_pickle")


def dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; "" in place of what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def breaches(text: str) -> list[str]:
    """What in a module could make code of data."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [name for name in names if name in CODE_IN_DATA or name.partition(".")[0] in CODE_IN_DATA]
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            found += [alias.name for alias in node.names if f"torch.{alias.name}" in CODE_IN_DATA]
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg in GUARDS}
        if called in ("eval", "exec", "__import__") or called.rpartition(".")[2] in CALLS:
            found.append(called)
        if called.endswith("torch.load") and given.get("weights_only") != "True":
            found.append("torch.load")
        if given.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
    return found


def test_nothing_makes_code_of_data():
    found = {}
    for path in (ROOT / "vllm").rglob("*.py"):
        if these := breaches(path.read_text("utf-8")):
            found[str(path.relative_to(ROOT))] = these
    assert found.pop("vllm/loading/readers/pickled.py") == ["pickle"]
    assert found == {}


def test_the_reader_of_checkpoints_takes_only_the_error_from_pickle():
    text = (ROOT / "vllm/loading/readers/pickled.py").read_text("utf-8")
    used = {ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("pickle.")} == {"pickle.UnpicklingError"}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from multiprocessing.connection import Listener",
        "def later():\n    import cloudpickle as c",
        "from torch import multiprocessing",
        "import torch.distributed as dist\ndist.broadcast_object_list([1])",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_a_planted_breach_is_seen(text):
    assert breaches(text)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_on_the_wire_is_refused_and_not_run(tmp_path):
    payload = pickle.dumps(Runs(tmp_path / "ran"))
    for decode in (wire.Frames.commands, wire.Frames.messages):
        front = wire.Frames()
        front.feed(struct.pack("<I", len(payload)) + payload)
        with pytest.raises(msgspec.MsgspecError):
            list(decode(front))
    for kind in frames.Kind:
        read, write = os.pipe()
        reader = frames.FrameReader(read)
        os.write(write, struct.pack("<IB", len(payload) + 1, kind) + payload)
        assert reader.feed()
        with pytest.raises(msgspec.MsgspecError):
            list(reader.frames())
        os.close(read)
        os.close(write)
    assert not (tmp_path / "ran").exists()
    pickle.loads(payload)  # the payload is what it says
    assert (tmp_path / "ran").exists()
