"""The process that compiles kernels while an engine starts: when it is started, what it hears, that nobody needs it."""

import subprocess
import sys

import pytest

from tests.unit.executor.test_processes import CONFIG
from tests.unit.worker.helpers import make_kv_plan, make_worker_plan
from vllm.config.args import EngineArgs
from vllm.executor import precompile
from vllm.executor.frames import FrameReader, Kind, pack_kv
from vllm.executor.precompile import Precompiler
from vllm.parts.hf import HFConfig
from vllm.planning.describe import describe

ARGS = EngineArgs(model="some-model")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with a GPU's driver, eight cores and nothing compiled."""
    (tmp_path / "driver" / "gpus" / "0").mkdir(parents=True)
    (tmp_path / "driver" / "gpus" / "0" / "information").write_text("Model: \t NVIDIA H200\nIRQ: 7\n")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("VLLM_PLATFORM", "VLLM_PRECOMPILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(precompile, "num_cores", lambda: 8)
    monkeypatch.setattr(precompile.metadata, "version", lambda name: "1.2.3")
    return tmp_path / "driver"


@pytest.fixture
def started(monkeypatch):
    """Programs that are started; they only read."""
    commands = []
    begin = subprocess.Popen

    def instead(command, **given):
        commands.append((command, given["env"]))
        return begin([sys.executable, "-c", "import sys; sys.stdin.read()"], **given)

    monkeypatch.setattr(precompile.subprocess, "Popen", instead)
    return commands


def test_it_is_started_where_it_has_something_to_do(driver, started, monkeypatch, tmp_path):
    assert Precompiler.begin(ARGS, tmp_path / "no driver") is None
    assert Precompiler.begin(EngineArgs(model="x", tensor_parallel_size=2), driver) is None
    for name, value in (("VLLM_PLATFORM", "cpu"), ("VLLM_PRECOMPILE", "0")):
        monkeypatch.setenv(name, value)
        assert Precompiler.begin(ARGS, driver) is None
        monkeypatch.delenv(name)
    monkeypatch.setattr(precompile, "num_cores", lambda: 2)
    assert Precompiler.begin(ARGS, driver) is None and not started
    monkeypatch.setattr(precompile, "num_cores", lambda: 8)
    found = Precompiler.begin(ARGS, driver)
    assert found is not None and found.is_busy
    found.close()
    (command, environment), *_ = started
    assert command[1:] == ["-m", "vllm.executor.precompile_main"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "", "it would take memory of the device"
    assert not found.is_busy


def test_a_mark_ends_it_for_the_same_arguments_and_no_others(driver, started, monkeypatch):
    first = Precompiler.begin(ARGS, driver)
    mark = first._mark
    mark.parent.mkdir()
    mark.touch()
    assert Precompiler.begin(ARGS, driver) is None
    other = Precompiler.begin(EngineArgs(model="some-model", max_num_seqs=7), driver)
    (driver / "gpus" / "0" / "information").write_text("Model: \t NVIDIA H100\n")
    elsewhere = Precompiler.begin(ARGS, driver)
    monkeypatch.setattr(precompile.metadata, "version", lambda name: "1.2.4")
    newer = Precompiler.begin(ARGS, driver)
    assert len({one._mark for one in (first, other, elsewhere, newer)}) == 4
    for one in (first, other, elsewhere, newer):
        one.close()


def test_what_it_hears(driver, monkeypatch):
    import torch

    class Card:
        major, minor, multi_processor_count = 9, 0, 132

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE)
    read, process.stdin = process.stdin, process.stdin
    one = Precompiler(process, driver / "mark", 5)
    heard = []
    monkeypatch.setattr(precompile, "write", lambda fd, data: heard.append(data))
    kv = make_kv_plan(describe(HFConfig(CONFIG)).decoder)
    one.tell(CONFIG, make_worker_plan(device="cuda"), kv)
    reader = FrameReader(0)
    reader._held += heard[0]
    ((kind, said),) = reader.frames()
    assert kind is Kind.REHEARSAL and said.chip == (9, 0, 132) and said.processes == 5
    assert said.config == CONFIG and said.kv["num_blocks"] == pack_kv(kv)["num_blocks"]
    assert read.closed and one.is_busy
    one.close()
    assert not one.is_busy


def test_nothing_is_left_of_it_where_the_device_is_none_of_these(driver, started):
    one = Precompiler.begin(ARGS, driver)
    one.tell(CONFIG, make_worker_plan(), make_kv_plan(describe(HFConfig(CONFIG)).decoder))
    assert not one.is_busy
