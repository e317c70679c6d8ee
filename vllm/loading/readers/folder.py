"""All tensors of a model folder, whatever kind of files they are in. Called by: loader."""

from collections.abc import Callable
from pathlib import Path

from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading.files import KINDS, kinds_of, weight_files
from vllm.loading.readers import pickled, safetensors
from vllm.loading.readers.source import Source

_OPEN: dict[str, Callable[[Path], list[Source]]] = {"safetensors": safetensors.open_file, "pt": pickled.open_file}


def open_folder(folder: Path, load_format: str = "auto") -> list[Source]:
    """Every tensor of the checkpoint in `folder`. `load_format`: auto, safetensors or pt. Raises ModelLoadError."""
    kinds = kinds_of(load_format)
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder} is not a folder")
    for kind in kinds:
        files = weight_files(folder, kind)
        if files:
            return _unique([s for file in files for s in _OPEN[kind](file)])
    endings = " or ".join(f"*{ending}" for kind in kinds for ending in KINDS[kind][1])
    raise ModelNotFoundError(f"{folder} holds no weights ({endings}); load_format='dummy' runs without any")


def _unique(sources: list[Source]) -> list[Source]:
    seen: dict[str, Source] = {}
    for s in sources:
        if s.name in seen:
            raise ModelLoadError(f"tensor {s.name!r} is both in {seen[s.name].file} and in {s.file}")
        seen[s.name] = s
    return sources
