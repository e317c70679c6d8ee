"""The generation on each device: which devices, with which environment, and what each end means."""

import json
import subprocess
import sys

import pytest

from vllm.doctor.checks import generate
from vllm.doctor.machine import ROOT, Machine, Ran
from vllm.doctor.torch_facts import Torch
from vllm.entrypoints import trial

TWO_GPUS = Torch("works", version="2.13.0+cu130", cuda="13.0", available=True, count=2)


class Planted(Machine):
    """A machine with two GPUs whose trials end as told; remembers their environments."""

    torch = TWO_GPUS

    def __init__(self, **told):
        super().__init__()
        object.__setattr__(self, "told", {"count": 10, "text": " Paris", "start": 1.0, "seconds": 1.0, **told})
        object.__setattr__(self, "asked", [])

    def python(self, code, limit, **changes):
        self.asked.append(changes)
        told = {"ran": changes["VLLM_PLATFORM"], "expected": True, **self.told}
        return Ran(0, f"noise\n{generate.MARK}{json.dumps(told)}\n", "")


def codes(machine):
    return [(code, generate.LINES[code].en.format(**words)) for code, words in generate.check(machine)]


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("3,GPU-abc", ["3", "GPU-abc"])])
def test_every_device_has_its_turn(monkeypatch, visible, names):
    monkeypatch.delenv("VLLM_PLATFORM", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine = Planted()
    said = codes(machine)
    assert [code for code, _ in said] == ["fine"] * 3 and said[2][1].startswith("cuda:1: 10 tokens")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in machine.asked] == ["", *names]
    assert [one["VLLM_PLATFORM"] for one in machine.asked] == ["cpu", "cuda", "cuda"]


def test_a_user_who_chose_the_cpu_is_asked_for_nothing_else(monkeypatch):
    monkeypatch.setenv("VLLM_PLATFORM", "cpu")
    assert len(codes(Planted())) == 1


def test_a_gpu_that_was_silently_left_aside_is_red(monkeypatch):
    monkeypatch.delenv("VLLM_PLATFORM", raising=False)
    said = codes(Planted(ran="cpu"))
    assert [code for code, _ in said] == ["fine", "elsewhere", "elsewhere"]
    assert said[1][1] == "cuda:0 was asked for, but cpu was used" and generate.LINES["elsewhere"].level == "red"


def test_wrong_tokens_are_red():
    code, text = codes(Planted(expected=False, text="?!"))[0]
    assert code == "odd" and "'?!'" in text and generate.LINES["odd"].level == "red"


def test_a_trial_that_prints_nothing_has_failed():
    machine = Planted()
    object.__setattr__(machine, "python", lambda code, limit, **changes: Ran(0, "", "why not"))
    code, text = codes(machine)[0]
    assert code == "failed" and "why not" in text


def test_both_ends_of_the_pipe_agree():
    assert trial.MARK == generate.MARK


def test_the_host_half_of_doctor_loads_neither_torch_nor_any_package():
    code = (
        "import sys; before = set(sys.modules); from vllm.doctor import examine; examine.names(); "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "['vllm']", done.stdout + done.stderr
