"""The laws of the house hold, and each check would notice if one did not."""

import datetime
import shutil
import tomllib

import pytest

from tools.house import cycles, floors, pins, sizes, words
from tools.house.source import ROOT, Module, modules


def test_floors_are_kept():
    contracts, output = floors.check()
    assert contracts and all(contracts.values()), output


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory):
    """A copy of the package with one breach of each contract planted in it, checked once."""
    root = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / ".importlinter", root)
    shutil.copytree(ROOT / "vllm", root / "vllm", ignore=shutil.ignore_patterns("__pycache__"))
    planted = {
        "util/planted_floor.py": "import vllm.kv.planted_far",
        "kv/planted_far.py": "import vllm.tokenizer.planted_near",
        "tokenizer/planted_near.py": "def later():\n    import torch\n",
        "chat/planted_types.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import triton\n",
        "layers/planted_host.py": "def later():\n    import vllm.kv.planted_far\n",
        "models/planted_one.py": "import vllm.models.planted_two",
        "models/planted_two.py": "",
        "features/planted_a/__init__.py": "import vllm.features.planted_b",
        "features/planted_b/__init__.py": "",
        "scheduler/planted_feature.py": "def later():\n    import vllm.features.planted_b\n",
    }
    for file, text in planted.items():
        (root / "vllm" / file).parent.mkdir(exist_ok=True)
        (root / "vllm" / file).write_text(text)
    return floors.check(root)


@pytest.mark.parametrize(
    "clue",
    [
        "vllm.util is not allowed to import vllm.kv",
        "vllm.tokenizer is not allowed to import torch",
        "vllm.kv is not allowed to import torch",  # a room away
        "vllm.chat is not allowed to import triton",  # under TYPE_CHECKING
        "vllm.layers is not allowed to import vllm.kv",  # inside a function
        "vllm.models.planted_one is not allowed to import vllm.models.planted_two",
        "vllm.features.planted_a is not allowed to import vllm.features.planted_b",
        "vllm.scheduler is not allowed to import vllm.features",
    ],
)
def test_a_planted_breach_is_seen(broken_house, clue):
    contracts, output = broken_house
    assert contracts and not any(contracts.values())
    assert clue in output


def test_no_import_cycle():
    assert cycles.cycles(cycles.graph(modules())) == []


def test_cycles_are_seen_in_functions_and_under_type_checking(tmp_path):
    texts = {
        "__init__": "",
        "a": "def later():\n    from p import b\n",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.c import thing\n",
        "c": "import p.a\nthing = 1\n",
        "d": "import p.a\n",
    }
    (tmp_path / "p").mkdir()
    for name, text in texts.items():
        (tmp_path / "p" / f"{name}.py").write_text(text)
    assert cycles.cycles(cycles.graph(modules("p", tmp_path))) == [["p.a", "p.b", "p.c"]]


@pytest.mark.parametrize("name", sorted(pins.lists()))
def test_pinned_list(name):
    assert pins.lists()[name] == pins.pinned(name), "if the change is meant: python -m tools.house pin"


def test_limits_of_the_public_surface():
    assert len(pins.lists()["environment"]) <= 20
    assert len(pins.lists()["engine_args"]) <= 150


def planted(tmp_path, file, text):
    path = tmp_path / "planted.py"
    path.write_text(text)
    return Module("vllm.planted", path, file)


def house():
    return tomllib.loads((ROOT / "house.toml").read_text())


def test_sizes_are_told(tmp_path):
    body = "def long(a, b, c, d, e, f, g, h):\n" + "    a = 1\n" * 450
    told = list(sizes.findings([planted(tmp_path, "vllm/kv/x.py", body)], house(), datetime.date(2026, 1, 1)))
    assert any("451 lines; past 400" in line for line in told)
    assert any("long() has 451 lines" in line for line in told)
    assert any("long() has 8 parameters" in line for line in told)


def test_words_are_told_in_code_only(tmp_path):
    text = '"""os.environ in prose."""\nimport os\n# os.environ\nx = os.environ["HOME"]\n'
    told = list(words.findings([planted(tmp_path, "vllm/kv/x.py", text)], house()))
    assert told == ["vllm/kv/x.py:4: 'os.environ': one reader of the environment"]
    assert not list(words.findings([planted(tmp_path, "vllm/util/env.py", text)], house()))


@pytest.mark.parametrize("law", ["one reader of the environment", "nothing is tuned or traced while serving"])
def test_laws_of_words(law):
    assert any(rule["why"] == law for rule in house()["word"])
    assert [line for line in words.findings(modules(), house()) if law in line] == []


def test_a_kernel_that_tunes_itself_is_seen(tmp_path):
    text = "import torch\nimport triton\n\n\n@triton.autotune([], key=[])\ndef f(x):\n    return torch.compile(x)\n"
    told = list(words.findings([planted(tmp_path, "vllm/ops/triton/x.py", text)], house()))
    assert [line.split(":")[1] for line in told] == ["5", "7"]
