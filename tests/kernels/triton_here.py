"""Where the Triton tests run: on a GPU, else in Triton's interpreter, which before 3.9 wants numpy < 2.4."""

import os

import numpy
import pytest
import torch

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16) if HAS_GPU else (torch.float32,)
"""The interpreter multiplies bfloat16 wrongly."""

if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")
triton = pytest.importorskip("triton")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


if not HAS_GPU and _numbers(numpy.__version__) >= (2, 4) and _numbers(triton.__version__) < (3, 9):
    pytest.skip("the interpreter of Triton before 3.9 needs numpy < 2.4", allow_module_level=True)
