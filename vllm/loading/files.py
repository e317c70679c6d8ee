"""Which files of a folder hold the weights, and which files of a hub's listing are wanted at all. No torch, no network.

safetensors before `.bin`; an index file before a search, since a folder may hold the same weights twice (Mistral ships
`consolidated*`). Does not know what is in the files. Called by: readers, cache layout, hub.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from vllm.errors import ModelLoadError, ModelNotFoundError

KINDS = {"safetensors": ("model.safetensors", (".safetensors",)), "pt": ("pytorch_model.bin", (".bin", ".pt", ".pth"))}
_NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "adapter_model")
_SIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".vocab")


def kinds_of(load_format: str) -> list[str]:
    """The kinds of files to look for, in order."""
    if load_format in ("auto", "hf"):
        return list(KINDS)
    if load_format not in KINDS:
        raise ModelLoadError(f"load_format {load_format!r} is not known; known are auto, {', '.join(KINDS)}, dummy")
    return [load_format]


def weight_files(folder: Path, kind: str) -> list[Path]:
    """Files of one kind that make the checkpoint, sorted; [] when there are none.

    Raises ModelNotFoundError when some are named but not there (an unfinished download, a broken link).
    """
    single, endings = KINDS[kind]
    index = folder / f"{single}.index.json"
    if index.is_file():
        return _from_index(folder, index)
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(endings))
    return [_present(folder / name) for name in pick_weights(names, kind)]


def pick_weights(names: Iterable[str], kind: str) -> list[str]:
    """Of the file names of a folder, those that hold its weights in one kind of file."""
    single, endings = KINDS[kind]
    usual = single.partition(".")[0]
    found = [n for n in names if n.endswith(endings) and "/" not in n and not n.startswith(_NOT_WEIGHTS)]
    if single in found:
        return [single]
    # why: `consolidated*` is the same model once more, in its maker's own layout and names
    return [n for n in found if n.startswith(f"{usual}-")] or [n for n in found if not n.startswith("consolidated")]


def wanted(names: Iterable[str], weights: bool = True, load_format: str = "auto") -> list[str]:
    """Files to fetch out of a hub's listing: config, tokenizer and, with `weights`, one kind of weight files."""
    names = sorted(names)
    side = [n for n in names if "/" not in n and n.endswith(_SIDE) and not n.endswith(".index.json")]
    if not weights or load_format == "dummy":
        return side
    for kind in kinds_of(load_format):
        found = pick_weights(names, kind)
        if found:
            return side + found + [n for n in names if n == f"{KINDS[kind][0]}.index.json"]
    return side


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
