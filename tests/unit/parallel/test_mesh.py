"""Sums over an axis whose ranks keep their order."""

import pytest
import torch

from vllm.parallel.mesh import Axis


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_in_order_depends_on_its_own_terms_alone(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    parts = [torch.randn(7, 33, generator=torch.Generator().manual_seed(r)).to(dtype) for r in range(5)]
    axis = Axis(5, 2, object(), tuple(range(5)), in_order=True)
    monkeypatch.setattr(Axis, "_gather", lambda self, x: [part[: len(x)].clone() for part in parts])
    whole = axis.all_reduce(parts[2].clone())
    expected = torch.zeros(7, 33)
    for part in parts:
        expected += part.float()
    assert torch.equal(whole, expected.to(dtype)), "float32 all the way, in order of rank"
    assert torch.equal(axis.all_reduce(parts[2][:1].clone()), whole[:1])


def test_an_axis_of_one_does_nothing() -> None:
    x = torch.ones(3)
    assert Axis(in_order=True).all_reduce(x) is x
    assert Axis().all_gather(x) is x
