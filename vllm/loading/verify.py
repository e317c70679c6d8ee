"""Whether files of the cache hold what the hub said: the standard cache names each blob by its hash.

    64 hex digits   SHA-256 of the content (large files)
    40 hex digits   SHA-1 of "blob <size>\\0" and the content, as git names it (small files)

Does not know networks, so it also works offline. No torch. Called by: pull, `vllm show`.
"""

import hashlib
import re
from pathlib import Path

_CHUNK = 1 << 22


def wrong_files(snapshot: Path) -> list[str]:
    """Names of the files of a snapshot whose content is not what their blob's name says; links to nowhere too."""
    return sorted(path.name for path in snapshot.iterdir() if is_right(path) is False)


def is_right(path: Path) -> bool | None:
    """True or False for a file whose blob is named by a hash, None for one that is not."""
    if not path.exists():
        return False
    name, size = path.resolve().name, path.stat().st_size
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return digest(path) == name
    if re.fullmatch(r"[0-9a-f]{40}", name):
        return digest(path, hashlib.sha1(b"blob %d\0" % size)) == name
    return None


def digest(path: Path, state: "hashlib._Hash | None" = None) -> str:
    """Hex digits of the content's hash; SHA-256 unless a started state is given."""
    state = state or hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
