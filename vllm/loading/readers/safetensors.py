"""safetensors files, mapped into memory and read by ourselves: 8 bytes of length, a JSON header, raw tensors.

Every tensor is a view of the mapping, so a rank that needs half of a tensor touches half of its bytes. Does not know
names or shapes of ours. Invariant: the header is checked against the size of the file before any tensor is read, so a
truncated or damaged file is one sentence. Called by: readers.folder.
"""

import json
import math
import mmap
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vllm.errors import ModelLoadError
from vllm.loading.readers.source import Source

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_MAX_HEADER = 100 * 1024 * 1024


def open_file(path: Path) -> list[Source]:
    """Tensors of one file, in order of their bytes. Raises ModelLoadError for a damaged one."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise ModelLoadError(f"{path} is not a safetensors file, or it is cut off ({size} bytes); fetch it again")
        header = _header(path, file.read(length))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    items = sorted(header.items(), key=lambda item: _offsets(path, *item))
    return [_source(path, name, entry, data, 8 + length) for name, entry in items]


def names(path: Path) -> Iterator[str]:
    """Names in the file."""
    return (s.name for s in open_file(path))


def _header(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ModelLoadError(f"the header of {path} is not readable JSON: the file is damaged; fetch it again")
    return header


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    try:
        start, end = entry["data_offsets"]
        shape, kind = entry["shape"], entry["dtype"]
        good = 0 <= start <= end and all(isinstance(n, int) and n >= 0 for n in shape) and isinstance(kind, str)
    except (TypeError, KeyError, ValueError):
        good = False
    if not good:
        raise ModelLoadError(f"the header of {path} describes tensor {name!r} wrongly: the file is damaged")
    return start, end


def _source(path: Path, name: str, entry: dict[str, Any], data: mmap.mmap, base: int) -> Source:
    (start, end), shape, kind = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    if kind not in DTYPES:
        raise ModelLoadError(f"tensor {name!r} in {path} has dtype {kind}, which is not supported")
    dtype, count = DTYPES[kind], math.prod(shape)
    if count * dtype.itemsize != end - start:
        raise ModelLoadError(f"tensor {name!r} in {path}: shape {list(shape)} does not fill its {end - start} bytes")
    if base + end > len(data):
        raise ModelLoadError(
            f"{path} is cut off: tensor {name!r} ends at byte {base + end}, the file has {len(data)}; fetch it again"
        )

    def read() -> torch.Tensor:
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            # why: the mapping is read-only on purpose, and a torch tensor cannot say so
            warnings.simplefilter("ignore")
            flat = torch.frombuffer(data, dtype=dtype, count=count, offset=base + start)
        return flat.view(shape)

    return Source(name, path.name, shape, read)
