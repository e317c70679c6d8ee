"""Where the Triton tests run: on a GPU, else in Triton's interpreter, which numpy 2.4 and later cannot serve."""

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
    if tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip("Triton's interpreter needs numpy < 2.4", allow_module_level=True)
pytest.importorskip("triton")
