"""The Hugging Face cache on disk: which folder of it holds a model.

    hub/models--facebook--opt-125m/refs/main            names a commit
    hub/models--facebook--opt-125m/snapshots/<commit>/  links into ../../blobs

A path may point at any level of it. Does not know networks. Invariant: two possible answers are an error that names
both, never a guess. No torch. Called by: resolve, hub.
"""

from pathlib import Path

from vllm.errors import ModelNotFoundError
from vllm.loading.files import KINDS, wanted, weight_files

IMPORTED = ".imported"
"""A file beside `snapshots`: where the model came from, when that was no hub."""


def find_model(path: Path, revision: str | None = None) -> Path:
    """The folder with config.json at `path`, or inside it when `path` is a level of the cache. ModelNotFoundError."""
    if (path / "config.json").exists():
        return _whole(path)
    broken = _broken(path)
    if broken:
        raise ModelNotFoundError(_about_links(path, broken))
    if path.name == "snapshots":
        return _snapshot(path.parent, revision)
    if (path / "snapshots").is_dir():
        return _snapshot(path, revision)
    for level in (path, path / "hub"):
        models = sorted(level.glob("models--*"))
        if len(models) == 1:
            return _snapshot(models[0], revision)
        if models:
            names = ", ".join(m.name for m in models[:4]) + (", ..." if len(models) > 4 else "")
            raise ModelNotFoundError(f"{level} holds {len(models)} models ({names}); give the path of one of them")
    raise ModelNotFoundError(f"{path} has no config.json, so it is not a model folder")


def cached_snapshot(cache: Path, repo: str, revision: str | None, weights: bool = True) -> Path | None:
    """The whole snapshot of a hub id in the cache folder, None when it is not there or lacks files."""
    try:
        folder = _snapshot(cache / f"models--{repo.replace('/', '--')}", revision)
        if weights and not any(weight_files(folder, kind) for kind in KINDS):
            return None
    except (OSError, ValueError):
        return None
    return folder


def is_imported(snapshot: Path) -> bool:
    """Whether a snapshot came from a folder or an address (`vllm pull`), so that no hub can have news of it."""
    return (snapshot.parent.parent / IMPORTED).exists()


def _snapshot(model: Path, revision: str | None) -> Path:
    """The snapshot that `revision` (default main) names, or the only one."""
    folder = model / "snapshots"
    found = sorted(p for p in folder.glob("*") if p.is_dir()) if folder.is_dir() else []
    names = [p.name for p in found]
    commit = _commit(model, revision or "main") or revision
    if commit in names:
        return _whole(folder / commit)
    if revision is not None or not found:
        has = f"it has {', '.join(names[:4])}" if names else "it has none"
        raise ModelNotFoundError(f"{model} has no snapshot {commit or 'main'!r}; {has}. Its download was not finished")
    if commit is not None:
        raise ModelNotFoundError(
            f"{model}/refs/main names the snapshot {commit}, which is not there (there {_are(names)}); "
            f"give the path of one"
        )
    if len(found) > 1:
        raise ModelNotFoundError(
            f"{model} holds {len(found)} snapshots ({', '.join(names[:4])}) and no refs/main to choose by; "
            f"give the path of one, or a revision"
        )
    return _whole(found[0])


def _are(names: list[str]) -> str:
    return f"are {', '.join(names[:4])}" if len(names) > 1 else f"is {names[0]}"


def _commit(model: Path, revision: str) -> str | None:
    try:
        return (model / "refs" / revision).read_text("utf-8").strip() or None
    except OSError:
        return None


def _whole(folder: Path) -> Path:
    """`folder` itself, when config.json is there and no link that is needed leads nowhere."""
    broken = _broken(folder)
    if broken:
        raise ModelNotFoundError(_about_links(folder, broken))
    if not (folder / "config.json").exists():
        raise ModelNotFoundError(f"{folder} has no config.json; its download was not finished")
    return folder


def _broken(folder: Path) -> list[str]:
    """Files that a model needs and that are links to nowhere (a missing picture or second copy hurts nobody)."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return [name for name in wanted(names) if (folder / name).is_symlink() and not (folder / name).exists()]


def _about_links(folder: Path, broken: list[str]) -> str:
    more = ", ..." if len(broken) > 4 else ""
    return (
        f"{folder} holds {len(broken)} broken link{'s' if len(broken) > 1 else ''} ({', '.join(broken[:4])}{more}): "
        f"the blobs they point to are missing; copy the whole models--... folder, or copy with links followed"
    )
