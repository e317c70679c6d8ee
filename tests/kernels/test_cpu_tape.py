"""Recorded calls: the same results from other inputs, memory used again, and a refusal where values are looked at."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("llvmlite")
from vllm.ops.cpu import jit
from vllm.ops.cpu.linear import linear_jit, pack
from vllm.ops.cpu.norm import add_rms_norm_jit, rms_norm_jit
from vllm.ops.cpu.tape import CannotRecord, Recorder


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def network(num: int = 6, size: int = 256):
    """A function of a static input that calls kernels and torch, some of it on constants."""
    torch.manual_seed(0)
    packed = [pack((torch.randn(size, size) / size**0.5).bfloat16()) for _ in range(num)]
    bias, weight = torch.randn(size).bfloat16(), torch.rand(size)
    x = torch.randn(3, size).bfloat16()

    def step() -> torch.Tensor:
        stream, y = x.clone(), rms_norm_jit(x, weight, 1e-6)
        for w in packed:
            y = linear_jit(y, w, bias)
            y = (y * 0.5).clamp_(max=1.0)
            stream, y = add_rms_norm_jit(y, stream, weight, 1e-6)
            first, rest = y.split((100, size - 100), -1)
            y = torch.cat((rest, first), -1)
        return y + stream

    return x, step


@torch.inference_mode()
def test_a_tape_follows_its_inputs(two_threads):
    x, step = network()
    recorder = Recorder()
    first, tape = recorder.record(step, [x])
    assert torch.equal(first.clone(), step())
    for _ in range(3):
        x.copy_(torch.randn(x.shape).bfloat16())
        assert torch.equal(tape.run().clone(), step())
    assert jit.listener is None


@torch.inference_mode()
def test_recordings_share_memory_and_do_not_grow_with_depth():
    sizes = []
    for num in (4, 40):
        x, step = network(num)
        recorder = Recorder()
        tapes = [recorder.record(step, [x])[1] for _ in range(3)]
        sizes.append(sum(c.nbytes for c in recorder._pool._chunks))
        want = step()
        assert all(torch.equal(tape.run().clone(), want) for tape in tapes)
    assert sizes[0] == sizes[1]


@torch.inference_mode()
def test_what_never_changes_is_not_done_again():
    x, step = network(1)
    tape = Recorder().record(step, [x])[1]
    thunks = sum(callable(part) for part in tape._parts)
    assert 0 < thunks <= 5  # clone, times a half, clamp, cat, sum: the bias as float32 is made once


@pytest.mark.parametrize(
    "look",
    [lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: bool(x.any()), lambda x: x.float().numpy(),
     lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: float(x.max())],
)  # fmt: skip
@torch.inference_mode()
def test_looking_at_values_is_refused(look):
    x = torch.randn(3, 64)

    def step():
        look(x + 1)
        return x + 1

    with pytest.raises(CannotRecord, match="looks at values"):
        Recorder().record(step, [x])
    assert jit.listener is None


@torch.inference_mode()
def test_a_step_that_fails_leaves_nothing_behind():
    def step():
        raise KeyError("seeded")

    with pytest.raises(KeyError):
        Recorder().record(step, [])
    assert jit.listener is None
    x, step = network(1)
    assert torch.equal(Recorder().record(step, [x])[0].clone(), step())


def test_recording_imports_no_compiler():
    code = (
        "import sys, torch\n"
        "from vllm.ops.cpu.tape import Recorder\n"
        "x = torch.ones(3)\n"
        "with torch.inference_mode():\n"
        "    out, tape = Recorder().record(lambda: torch.empty(3).copy_(x) * 2, [x])\n"
        "    x.fill_(4)\n"
        "    print(tape.run().tolist(), 'torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[8.0, 8.0, 8.0] False", done.stderr


def test_helpers_sleep_when_nobody_calls_and_a_forked_child_works_alone():
    code = (
        "import os, time, torch\n"
        "torch.set_num_threads(2)\n"
        "from vllm.ops.cpu.linear import linear_jit, pack\n"
        "w, x = torch.randn(512, 256), torch.randn(4, 256)\n"
        "want, packed = x @ w.T, pack(w.clone())\n"
        "def right():\n"
        "    return torch.allclose(linear_jit(x, packed), want, atol=1e-3)\n"
        "assert all(right() for _ in range(20))\n"
        "for _ in range(5):\n"  # a helper that got no core yet has not gone to sleep yet
        "    time.sleep(0.2)\n"
        "    before = time.process_time()\n"
        "    time.sleep(0.5)\n"
        "    spent = time.process_time() - before\n"
        "    if spent < 0.025: break\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    torch.set_num_threads(1)\n"
        "    os._exit(0 if right() else 1)\n"
        "print(spent < 0.025, os.waitpid(pid, 0)[1], right())\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True 0 True", done.stderr
