"""Weights that are made when they are taken: in any order, few at once, errors where they are taken."""

import threading

import pytest
import torch

from vllm.loading.one_by_one import OneByOne
from vllm.platforms.pages import passing


def test_few_exist_at_once() -> None:
    lock, alive, most = threading.Lock(), [0], [0]

    def make(name: str) -> torch.Tensor:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return torch.full((1,), float(name))

    names = [str(i) for i in range(40)]
    tensors = OneByOne(names, make)
    for name in [*names[:10], *reversed(names[10:])]:
        assert name in tensors and tensors.pop(name).item() == float(name)
        with lock:
            alive[0] -= 1
    assert not tensors and 1 < most[0] <= 3
    assert tensors.pop("0", None) is None
    with pytest.raises(KeyError):
        tensors.pop("0")


def test_an_error_is_raised_where_it_is_taken() -> None:
    def make(name: str) -> torch.Tensor:
        if name == "b":
            raise ValueError("b is damaged")
        return torch.zeros(1)

    tensors = OneByOne("abc", make)
    tensors.pop("a")
    with pytest.raises(ValueError, match="b is damaged"):
        tensors.pop("b")
    tensors.pop("c")


@pytest.mark.parametrize("shape", [(3,), (2048, 1024)])
def test_memory_that_goes_back(shape: tuple[int, ...]) -> None:
    made = passing(shape, torch.bfloat16)
    assert made.shape == shape and made.dtype == torch.bfloat16 and not made.any()
    made.fill_(1)
    assert made.all()
