"""Models that come from no hub: a folder, a web address of a folder, an archive; kept in the standard cache's layout.

    <cache>/models--HOST--NAME/.imported             where it came from
    <cache>/models--HOST--NAME/blobs/<sha256>        content
    <cache>/models--HOST--NAME/snapshots/<id>/...    links; <id> is a hash over names and contents
    <cache>/.downloads/<hash of the address>         what has arrived of a file, so that a second call goes on

No torch. Called by: pull.
"""

import hashlib
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading.cache_layout import IMPORTED
from vllm.loading.download import Missing, download
from vllm.loading.files import KINDS, wanted
from vllm.loading.reach import Unreachable, get
from vllm.loading.verify import digest

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
SIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)


def hub_page(address: str) -> tuple[str, str, str | None] | None:
    """(endpoint, model, revision) when `address` is a model's page on a hub that answers there, else None."""
    parts = urlsplit(address)
    page = re.fullmatch(r"/([\w.\-]+/[\w.\-]+)(?:/(?:tree|blob|resolve)/([\w.\-]+).*)?/?", parts.path)
    if page is None or parts.path.endswith(ARCHIVES):
        return None
    endpoint = f"{parts.scheme}://{parts.netloc}"
    try:
        answer = get(f"{endpoint}/api/models/{page[1]}", 8.0)
        refuses = answer.status in (401, 403) and "x-error-code" in answer.headers
        known = isinstance(json.loads(answer.body), dict) and (answer.status == 200 or refuses)
    except (Unreachable, ValueError):
        return None
    return (endpoint, page[1], page[2]) if known else None


def from_folder(folder: Path, cache: Path, name: str | None) -> tuple[str, Path]:
    """Copy a model folder's files into the cache, as `name` or local/FOLDER."""
    files = {file: folder / file for file in wanted(p.name for p in folder.iterdir() if p.is_file())}
    return _keep(files, cache, name or f"local/{_plain(folder.resolve().name)}", str(folder.resolve()), is_ours=False)


def from_address(address: str, cache: Path, name: str | None) -> tuple[str, Path]:
    """Fetch an archive, or the files of a folder, from a web server. `#sha256=...` at its end is checked."""
    parts = urlsplit(address)
    where, _, wanted_hash = address.partition("#sha256=")
    last = parts.path.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"(\.tar)?\.\w+$", "", last) if is_archive(last) else last
    name = name or f"{_plain(parts.netloc)}/{_plain(stem)}"
    room = cache / ".downloads" / hashlib.sha256(address.encode()).hexdigest()[:32]
    room.mkdir(parents=True, exist_ok=True)
    files = _archive(where, room, wanted_hash) if is_archive(last) else _folder(where.rstrip("/") + "/", room)
    kept = _keep(files, cache, name, where, is_ours=True)
    shutil.rmtree(room)
    return kept


def is_archive(name: str) -> bool:
    return name.endswith(ARCHIVES)


def _folder(base: str, room: Path) -> dict[str, Path]:
    """The files of a model at `base`: a web server gives no listing, so the index and the usual names say which."""
    try:
        found = {"config.json": download(urljoin(base, "config.json"), room / "config.json")}
    except Missing:
        raise ModelNotFoundError(
            f"{base} has no config.json, and no hub answers there; give the address of a model's page, of a folder "
            f"with config.json in it, or of an archive ({', '.join(ARCHIVES)})"
        ) from None
    for single, _ in KINDS.values():
        for file in (f"{single}.index.json", single):
            _try(base, file, room, found)
            if file not in found:
                continue
            if file.endswith(".index.json"):
                for shard in sorted(set(json.loads(found[file].read_text("utf-8"))["weight_map"].values())):
                    if _safe(shard) != shard:
                        raise ModelLoadError(f"{base}{file} names {shard!r}, which is not a file of its own folder")
                    found[shard] = download(urljoin(base, shard), room / shard)
            break
        if any(name.startswith(single.partition(".")[0]) for name in found):
            break
    else:
        raise ModelNotFoundError(f"{base} has none of {', '.join(single for single, _ in KINDS.values())}")
    for file in SIDE:
        _try(base, file, room, found)
    return found


def _try(base: str, file: str, room: Path, found: dict[str, Path]) -> None:
    with suppress(Missing):
        found[file] = download(urljoin(base, file), room / file)


def _archive(address: str, room: Path, wanted_hash: str) -> dict[str, Path]:
    archive = download(address, room / "archive")
    if wanted_hash and digest(archive) != wanted_hash.lower():
        archive.unlink()
        raise ModelLoadError(f"{address} does not have the SHA-256 {wanted_hash} that was asked for; it was removed")
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                members = {m.filename: m for m in zipped.infolist() if not m.is_dir()}
                return _unpack(members, zipped.open, room)
        with tarfile.open(archive) as tar:
            inside = {m.name: m for m in tar.getmembers() if m.isfile()}
            return _unpack(inside, tar.extractfile, room)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ModelLoadError(f"{address} is not a readable archive: {error}") from None


def _unpack(members: Mapping[str, Any], read: Callable[[Any], IO[bytes] | None], room: Path) -> dict[str, Path]:
    """The files beside the archive's one config.json that a model needs; paths inside it are never followed."""
    configs = [name for name in members if name.rpartition("/")[2] == "config.json"]
    if not configs:
        raise ModelNotFoundError("the archive holds no config.json, so there is no model in it")
    top = min(configs, key=lambda name: name.count("/")).removesuffix("config.json")
    names = [name.removeprefix(top) for name in members if name.startswith(top)]
    found = {}
    for name in wanted(n for n in names if _safe(n) == n):
        source = read(members[top + name])
        assert source is not None, "only files are members here"
        with source, (room / f"file-{name}").open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
        found[name] = room / f"file-{name}"
    return found


def _keep(files: dict[str, Path], cache: Path, name: str, origin: str, is_ours: bool) -> tuple[str, Path]:
    """Put files into the cache as the one snapshot of `name`; `is_ours` files are moved, others copied."""
    if "config.json" not in files:
        raise ModelNotFoundError(f"{origin} has no config.json, so it is not a model folder")
    if re.fullmatch(r"[A-Za-z0-9_][\w.\-]*(/[A-Za-z0-9_][\w.\-]*)?", name) is None or "--" in name:
        raise ModelNotFoundError(f"name={name!r} is not of the form group/model")
    home = cache / f"models--{name.replace('/', '--')}"
    if home.exists() and not (home / IMPORTED).exists():
        raise ModelLoadError(f"{home} holds the hub's {name}; choose another name with --name")
    blobs = home / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    (home / IMPORTED).write_text(origin + "\n", "utf-8")
    hashes = {file: _blob(path, blobs, is_ours) for file, path in sorted(files.items())}
    commit = hashlib.sha1("".join(f"{file} {sha}\n" for file, sha in hashes.items()).encode()).hexdigest()
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for file, sha in hashes.items():
        link = snapshot / file
        if not link.is_symlink():
            link.symlink_to(Path("..") / ".." / "blobs" / sha)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit, "utf-8")
    return name, snapshot


def _blob(path: Path, blobs: Path, is_ours: bool) -> str:
    sha = digest(path)
    if not (blobs / sha).exists():
        part = blobs / f"{sha}.incomplete"
        (shutil.move if is_ours else shutil.copyfile)(path, part)
        part.rename(blobs / sha)
    return sha


def _safe(name: str) -> str:
    return Path(name).name


def _plain(text: str) -> str:
    """`text` as a part of a hub's name."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^\w.\-]", "-", text)).strip("-.") or "model"
