"""What models are on this machine's disk: the standard caches of the Hugging Face hub and of ModelScope, offline.

Does not know networks. Invariants: nothing outside a cache is removed, nor what a process has open; blobs that another
revision uses stay. No torch. Called by: `vllm list`, `vllm rm`, `vllm show`.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vllm.errors import ModelNotFoundError, nearest
from vllm.loading.cache_layout import IMPORTED, cached_snapshot
from vllm.loading.hub import default_cache
from vllm.util import env


@dataclass(frozen=True, slots=True)
class Held:
    """One model of a cache. `size` in bytes on disk, `used` in seconds since the epoch, `origin`: where it is from."""

    name: str
    folder: Path
    origin: str
    revisions: dict[str, list[str]]
    size: int
    used: float
    is_whole: bool

    def as_json(self) -> dict[str, object]:
        """Plain words for `--json`."""
        return {
            "model": self.name,
            "folder": str(self.folder),
            "origin": self.origin,
            "revisions": self.revisions,
            "size": self.size,
            "last_used": self.used,
            "whole": self.is_whole,
        }


def held(cache_dir: str | None = None) -> list[Held]:
    """Every model here, largest first; what is half fetched too."""
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache()
    found = [_from_hub(folder) for folder in sorted(cache.glob("models--*")) if folder.is_dir()]
    if cache_dir is None:
        found += _from_modelscope()
    return sorted(found, key=lambda item: -item.size)


def find(name: str, cache_dir: str | None = None) -> Held:
    """The model of that name. Raises ModelNotFoundError that names the nearest."""
    there = {item.name: item for item in held(cache_dir)}
    if name not in there:
        raise ModelNotFoundError(f"{name} is in no cache here.{nearest(name, list(there))} `vllm list` says what is")
    return there[name]


def users(folder: Path) -> list[int]:
    """Process ids that have a file of `folder` open or mapped, as far as this user may look (Linux)."""
    inside, found = f"{folder.resolve()}{os.sep}", []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            maps = (process / "maps").read_text(errors="replace")
            opened = [os.readlink(fd) for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if inside in maps or any(name.startswith(inside) for name in opened):
            found.append(int(process.name))
    return found


def remove(item: Held, revision: str | None = None) -> int:
    """Remove a model, or one of its revisions; returns the bytes that were freed. Raises ModelNotFoundError."""
    if revision is None or list(item.revisions) == [_commit(item, revision)]:
        shutil.rmtree(item.folder)
        return item.size
    commit = _commit(item, revision)
    kept = {
        file.resolve()
        for other in item.revisions
        if other != commit
        for file in (item.folder / "snapshots" / other).rglob("*")
    }
    freed = 0
    for file in (item.folder / "snapshots" / commit).rglob("*"):
        blob = file.resolve()
        if file.is_symlink() and blob not in kept and blob.is_relative_to(item.folder.resolve()) and blob.exists():
            freed += blob.stat().st_size
            blob.unlink()
    shutil.rmtree(item.folder / "snapshots" / commit)
    for ref in item.revisions[commit]:
        (item.folder / "refs" / ref).unlink(missing_ok=True)
    return freed


def _commit(item: Held, revision: str) -> str:
    """The revision's folder name, from a branch, a tag, or the first characters of a commit."""
    for commit, refs in item.revisions.items():
        if revision in refs or (len(revision) >= 6 and commit.startswith(revision)):
            return commit
    raise ModelNotFoundError(f"{item.name} has no revision {revision!r} here; it has {', '.join(item.revisions)}")


def _from_hub(folder: Path) -> Held:
    name = folder.name.removeprefix("models--").replace("--", "/")
    refs: dict[str, list[str]] = {}
    for ref in sorted((folder / "refs").rglob("*")) if (folder / "refs").is_dir() else ():
        if ref.is_file():
            refs.setdefault(ref.read_text("utf-8").strip(), []).append(str(ref.relative_to(folder / "refs")))
    snapshots = folder / "snapshots"
    revisions = {p.name: refs.get(p.name, []) for p in sorted(snapshots.glob("*")) if p.is_dir()}
    imported = folder / IMPORTED
    origin = imported.read_text("utf-8").strip() if imported.exists() else "hub"
    # why: every revision must be whole; the one that no ref names is asked for by its own name.
    whole = bool(revisions) and all(cached_snapshot(folder.parent, name, commit) for commit in revisions)
    halves = any((folder / "blobs").glob("*.incomplete")) if (folder / "blobs").is_dir() else False
    size, used = _measure(folder)
    return Held(name, folder, origin, revisions, size, used, whole and not halves)


def _from_modelscope() -> list[Held]:
    base = Path(env.text("MODELSCOPE_CACHE") or "~/.cache/modelscope/hub").expanduser()
    found = []
    for folder in sorted({*base.glob("models/*/*"), *base.glob("*/*")}):
        if (folder / "config.json").is_file() and not folder.is_symlink():
            size, used = _measure(folder)
            name = "/".join(folder.parts[-2:]).replace("___", ".")
            found.append(Held(name, folder, "modelscope", {}, size, used, True))
    return found


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes on disk, links not followed; and when a file of it was last read or written."""
    size, used = 0, 0.0
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            facts = file.stat()
            size, used = size + facts.st_size, max(used, facts.st_atime, facts.st_mtime)
    return size, used
