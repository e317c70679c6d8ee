"""One file from a web server, which goes on where it broke off. Huggingface_hub has its own for hubs.

Does not know models. No torch. Called by: imported.
"""

import errno
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from vllm.errors import ModelLoadError
from vllm.loading.reach import tls
from vllm.loading.ways_out import not_fetched

DISK = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT}
"""Errors that say something about this machine's disk, not about the network."""
_CHUNK = 1 << 20
_SILENCE = 30.0
"""Seconds without a byte after which a server counts as gone."""


class Missing(Exception):
    """The server says that there is no such file."""


def download(address: str, target: Path) -> Path:
    """Fetch `address` into `target`, from where `target.part` ends. Raises Missing, NotFetchedError, ModelLoadError."""
    if target.exists():
        return target
    part = target.with_name(target.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "vllm", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=_SILENCE, context=tls(address)) as reply:
            if reply.status != 206:
                start = 0
            _copy(reply, part, start, address)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to fetch, or the file changed: begin again
            part.unlink()
            return download(address, target)
        raise _refusal(address, error) from None
    except OSError as error:
        if error.errno in DISK:
            raise ModelLoadError(f"{target.parent} cannot be written: {error.strerror}") from None
        refusal = not_fetched(address, f"fetching {address} broke off: {error}")
        refusal.may_pass = True
        raise refusal from None
    part.rename(target)
    return target


def _copy(reply: Any, part: Path, start: int, address: str) -> None:
    length = reply.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else None
    from tqdm import tqdm

    name = address.rpartition("/")[2]
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=not sys.stderr.isatty())
    got = start
    with part.open("ab" if start else "wb") as file, bar:
        while chunk := reply.read(_CHUNK):
            file.write(chunk)
            got += len(chunk)
            bar.update(len(chunk))
    if total is not None and got < total:
        raise ConnectionError(f"{got} of {total} bytes arrived")


def _refusal(address: str, error: urllib.error.HTTPError) -> Exception:
    if error.code in (404, 410):
        return Missing(address)
    if error.code in (401, 403):
        return ModelLoadError(
            f"{address} may not be read (status {error.code}); put user:password@ into the address, "
            f"or fetch it yourself and give the folder"
        )
    refusal = not_fetched(address, f"fetching {address}: the server answered with status {error.code}")
    refusal.may_pass = error.code == 429 or error.code >= 500
    refusal.wait = min(float(error.headers.get("Retry-After") or 1), 60.0) if refusal.may_pass else 1.0
    return refusal
