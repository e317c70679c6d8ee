"""The gated map by Hopper's own kernel and by the library with a pass over its result, against the reference."""

import pytest
import torch
import torch.nn.functional as F

from tests.kernels.triton_here import DEVICE, DTYPES
from vllm.ops.fold import linear_mul
from vllm.ops.triton import linear_mul as multiplied
from vllm.ops.triton import linear_wide as wide
from vllm.ops.triton.chip import Chip

pytestmark = pytest.mark.gpu_too


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(device=DEVICE, dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape and got.dtype == want.dtype
    return float((got.double() - want.double()).abs().max() / want.double().abs().max())


def in_float64(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    gate, up = F.linear(x.double(), w.double()).chunk(2, -1)
    return (F.silu(gate) * up).to(x.dtype)


@pytest.mark.parametrize("case", [(3, 64, 96), (70, 128, 256), (128, 128, 512), (300, 128, 256)], ids=str)
def test_a_map_with_its_activation(case, monkeypatch):
    """As the op; every size may take the kernel for Hopper where there is one."""
    torch.manual_seed(0)
    monkeypatch.setattr(multiplied, "_LEAST", 0)
    monkeypatch.setattr(multiplied, "_ROWS", range(65, 999))
    monkeypatch.setattr(wide, "_FULL", 0.0)
    wide.gates_of.cache_clear()
    tokens, width, outputs = case
    dtype = DTYPES[min(1, len(DTYPES) - 1)]
    x, w = rand(tokens, 2 * width, dtype=dtype)[:, :width], rand(outputs, width, dtype=dtype) / 8
    assert error(multiplied.linear_mul_triton(x, w), linear_mul(x, w)) <= linear_mul.tol.of(dtype)
    wide.gates_of.cache_clear()


@pytest.mark.skipif(DEVICE == "cpu", reason="Gluon has no interpreter")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gates", list(wide._PIECES))
def test_tiles_of_every_width(gates, dtype):
    """Rows and outputs that fill no tile; more tiles than processors; more steps than tiles on their way, and one."""
    if multiplied.hopper_gated() is None:
        pytest.skip("no Hopper")
    torch.manual_seed(0)
    for outputs, inputs in ((200, 1088), (9000, 64)):
        w = rand(2 * outputs, inputs, dtype=dtype) / inputs**0.5
        for rows in (1, 65, 128, 129, 200, 384):
            x = rand(rows, inputs, dtype=dtype)
            got, again = wide.gated(x, w, gates), wide.gated(x, w, gates)
            assert torch.equal(got, again), (outputs, rows)
            assert error(got, in_float64(x, w)) <= linear_mul.tol.of(dtype), (outputs, rows)


def test_what_serves_for_which_call(monkeypatch):
    """The kernel takes sizes that fill the processors; others, odd shapes and other dtypes stay with the library."""
    monkeypatch.setattr(wide, "the_chip", lambda: Chip(True, (9, 0), 132))
    x, w = (torch.empty(n, 4096, dtype=torch.bfloat16, device="meta") for n in (128, 28672))
    assert wide.can(x, w) and wide.can(x.half(), w.half())
    assert not wide.can(x.float(), w.float()) and not wide.can(x.half(), w)
    assert not wide.can(x[:, :4000], w[:, :4000]) and not wide.can(x, w[:6144])
    strange = torch.empty(128, 4100, dtype=torch.bfloat16, device="meta")[:, :4096]
    assert not wide.can(strange, w), "rows that the copy engine cannot take"


@pytest.mark.parametrize("outputs", [2816, 9728, 12288, 14336, 17408, 18944, 25600, 28672])
@pytest.mark.parametrize("heights", [1, 2, 4])
@pytest.mark.parametrize("processors", [78, 114, 132])
def test_tiles_leave_few_processors_idle(outputs, heights, processors):
    gates = wide.gates_of(outputs, heights, processors)
    if gates is None:
        for g in wide._PIECES:
            tiles = -(-outputs // g) * heights
            assert tiles / (-(-tiles // processors) * processors) < 0.8
        return
    tiles = -(-outputs // gates) * heights
    assert tiles / (-(-tiles // processors) * processors) >= 0.8
    assert sum(wide._PIECES[gates]) == gates
