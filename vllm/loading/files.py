"""Which files of a folder hold the weights, and all their tensors.

safetensors before `.bin`; an index file before a search, since a folder may hold the same weights twice (Mistral ships
`consolidated*`). Does not know our names. Called by: loader.
"""

import json
from collections.abc import Callable
from pathlib import Path

from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading.readers import pickled, safetensors
from vllm.loading.readers.source import Source

_KINDS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], list[Source]]]] = {
    "safetensors": ("model.safetensors", ("*.safetensors",), safetensors.open_file),
    "pt": ("pytorch_model.bin", ("*.bin", "*.pt", "*.pth"), pickled.open_file),
}
_NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "consolidated", "rng_state", "adapter_model")


def open_folder(folder: Path, load_format: str = "auto") -> list[Source]:
    """Every tensor of the checkpoint in `folder`. `load_format`: auto, safetensors or pt."""
    kinds = list(_KINDS) if load_format == "auto" else [load_format]
    for kind in kinds:
        if kind not in _KINDS:
            raise ModelLoadError(f"load_format {kind!r} is not known; known are auto, {', '.join(_KINDS)}, dummy")
        files = weight_files(folder, kind)
        if files:
            return _unique([s for file in files for s in _KINDS[kind][2](file)])
    wanted = " or ".join(pattern for kind in kinds for pattern in _KINDS[kind][1])
    raise ModelNotFoundError(f"{folder} holds no weights ({wanted}); load_format='dummy' runs without any")


def weight_files(folder: Path, kind: str) -> list[Path]:
    """Files of one kind that make the checkpoint, sorted; [] when there are none."""
    single, patterns, _ = _KINDS[kind]
    index = folder / f"{single}.index.json"
    if index.is_file():
        return _from_index(folder, index)
    if (folder / single).exists() or (folder / single).is_symlink():
        return [_present(folder / single)]
    found = sorted({p for pattern in patterns for p in folder.glob(pattern)})
    return [_present(p) for p in found if not p.name.startswith(_NOT_WEIGHTS)]


def _from_index(folder: Path, index: Path) -> list[Path]:
    try:
        table = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted(set(table.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelLoadError(f"{index} is not a readable index (it needs a weight_map)") from None
    for name in names:
        if Path(name).name != name:
            raise ModelLoadError(f"{index} names {name!r}, which is not a file of its own folder")
    missing = [n for n in names if not (folder / n).exists()]
    if missing:
        raise ModelNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(names)} files named in {index.name}: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}; the download is not complete"
        )
    return [folder / n for n in names]


def _present(path: Path) -> Path:
    if not path.exists():
        raise ModelNotFoundError(f"{path} is a link to a file that does not exist; fetch the model again")
    return path


def _unique(sources: list[Source]) -> list[Source]:
    seen: dict[str, Source] = {}
    for s in sources:
        if s.name in seen:
            raise ModelLoadError(f"tensor {s.name!r} is both in {seen[s.name].file} and in {s.file}")
        seen[s.name] = s
    return sources
