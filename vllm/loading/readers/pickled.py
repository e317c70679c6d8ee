"""PyTorch `.bin` / `.pt` files, opened with weights_only: a pickle that wants to run code is refused.

Does not know names or shapes of ours. Invariant: nothing but tensors and plain containers is ever built from a file.
Called by: readers.folder.
"""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from vllm.errors import ModelLoadError
from vllm.loading.readers.source import Source


def open_file(path: Path) -> list[Source]:
    """Tensors of one file. Raises ModelLoadError for a damaged one, or one that holds more than tensors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # why: what is odd about a file becomes our error, or does not matter
            # why: only the zip layout can be mapped; older files are read whole
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelLoadError(
            f"{path} is damaged, or holds more than tensors and was not opened, "
            f"since that could run code ({reason[:120]})"
        ) from None
    except Exception as error:
        # why: the bytes of a damaged pickle are instructions, and can fail in any way there is
        raise ModelLoadError(
            f"{path} cannot be read as a PyTorch checkpoint: cut off or damaged ({error!s:.120})"
        ) from None
    return [_source(path, name, tensor) for name, tensor in _flat(path, state).items()]


def _flat(path: Path, state: Any) -> dict[str, torch.Tensor]:
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ModelLoadError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors")
    return {str(name): t for name, t in state.items() if isinstance(t, torch.Tensor)}


def _source(path: Path, name: str, tensor: torch.Tensor) -> Source:
    return Source(name, path.name, tuple(tensor.shape), lambda: tensor)
