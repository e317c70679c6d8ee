"""The kernel language itself: its mathematics against float64, threads, and life without it."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("llvmlite")
from vllm.ops.cpu import mathlib
from vllm.ops.cpu.jit import kernel
from vllm.ops.cpu.values import W

FUNCTIONS = {
    "exp": (mathlib.exp, torch.exp, torch.linspace(-87, 88, 4096), 3e-7),
    "log": (mathlib.log, torch.log, torch.logspace(-37, 38, 4096), 3e-7),
    "log1m": (mathlib.log1m, lambda x: torch.log1p(-x), torch.logspace(-9, -0.001, 4096), 4e-7),
    "tanh": (mathlib.tanh, torch.tanh, torch.linspace(-12, 12, 4096), 5e-7),
}


@kernel("x:f32* out:f32* n")
def _map(k, x, out, n, name):
    for i in k.range(0, n, W):
        (out + i).store(FUNCTIONS[name][0](k, (x + i).load(W)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_right_to_a_few_ulp(name):
    _, want, x, tolerance = FUNCTIONS[name]
    out = torch.empty_like(x)
    _map.get(True, name=name)(x.data_ptr(), out.data_ptr(), x.numel())
    exact = want(x.double())
    assert ((out.double() - exact).abs() <= tolerance * exact.abs() + 1e-37).all()


def test_exp_of_minus_infinity_is_zero():
    x, out = torch.full((16,), float("-inf")), torch.ones(16)
    _map.get(True, name="exp")(x.data_ptr(), out.data_ptr(), 16)
    assert torch.equal(out, torch.zeros(16))


@kernel("x:f32* out:bf16* n")
def _round(k, x, out, n):
    for i in k.share(n // W):
        (out + i * W).store((x + i * W).load(W))


def test_bf16_rounds_as_torch_does():
    words = torch.randint(-(2**31), 2**31 - 1, (1 << 16,), dtype=torch.int32)
    x = torch.cat((words.view(torch.float32), torch.tensor([float("inf"), float("-inf"), 3.4e38, 1.00390625] * 4)))
    out = torch.empty(x.numel(), dtype=torch.bfloat16)
    _round.get()(x.data_ptr(), out.data_ptr(), x.numel())
    assert torch.equal(out.nan_to_num(7.0), x.bfloat16().nan_to_num(7.0))


@kernel("out:i32* n:i32 by:i32")
def _divide(k, out, n, by):
    slabs = (n + by - 1) // by
    for i in k.dynamic(1):
        (out + i).store(slabs + n % by)


def test_a_division_before_the_claims_survives_the_arguments_of_another_call():
    """A late helper reads them, claims nothing, and must not be ended by them; once in some thousand requests."""
    out = torch.zeros(1, dtype=torch.int32)
    for n, by, want in ((17, 5, 4 + 2), (17, 0, 16), (17, -1, 15)):
        _divide.get()(out.data_ptr(), n, by)
        assert out.item() == want


@kernel("counts:i32* n")
def _count(k, counts, n):
    for i in k.dynamic(n):
        (counts + i).store((counts + i).load() + 1)
    k.barrier()
    for i in k.share(n):
        (counts + i).store((counts + i).load() * 2)


def test_work_is_handed_out_once_whatever_the_number_of_threads():
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            counts = torch.zeros(1001, dtype=torch.int32)
            _count.get()(counts.data_ptr(), 1001)
            assert torch.equal(counts, torch.full((1001,), 2, dtype=torch.int32))
    finally:
        torch.set_num_threads(before)


@kernel("out:i64* n times")
def _add(k, out, n, times):
    for i in k.dynamic(n):
        for _ in k.range(0, times):
            (out + i).store((out + i).load() + 1)


@kernel("out:i32* first:i32* n")
def _copy_then_shift(k, out, first, n):
    for i in k.dynamic(n):
        (first + i).store((first + i).load() * 3)
    k.barrier()
    for i in k.dynamic(n):
        (out + i).store((first + (n - 1 - i)).load())


def test_helpers_that_come_late_touch_nothing_of_the_next_call():
    """Many tiny calls of two kernels with different sizes and arguments, on more threads than cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        add, shift = _add.get(), _copy_then_shift.get()
        totals, calls = torch.zeros(64, dtype=torch.int64), 3000
        for c in range(calls):
            n = 1 + c % 64
            add(totals.data_ptr(), n, 3)
            small = torch.arange(1 + c % 5, dtype=torch.int32)
            out = torch.empty_like(small)
            shift(out.data_ptr(), small.data_ptr(), small.numel())
            assert out.tolist() == [3 * i for i in reversed(range(1 + c % 5))]
        want = [3 * sum(1 + c % 64 > i for c in range(calls)) for i in range(64)]
        assert totals.tolist() == want
    finally:
        torch.set_num_threads(before)


_PROBE = """
import sys, torch
{first}
from vllm.ops.table import Target, select
ops = select(Target("cpu", torch.bfloat16), folders=("cpu",))
x, w = torch.randn(5, 64).bfloat16(), torch.randn(70, 64).bfloat16()
y = ops.linear(x, ops.helper("linear", "pack")(w.clone()), None)
want = x.double() @ w.double().T
assert (y.double() - want).abs().max() < 0.01 * want.abs().max()
q = ops.linear_int8(x, ops.helper("linear_int8", "pack")(w), None)
assert (q.double() - want).norm() < 0.02 * want.norm()
from vllm.ops.cpu.jit import features
print(ops.names()["linear"], "avx512f" in features())
"""


def _probe(first: str, **environment: str) -> str:
    from vllm.util.env import for_child

    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(first=first)],
        env=for_child(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_without_the_compiler_the_references_run():
    assert _probe("sys.modules['llvmlite'] = None") == "reference False"


def test_a_lower_instruction_set_gives_the_same_answers():
    assert _probe("", ONEDNN_MAX_CPU_ISA="AVX2") == "jit False"
