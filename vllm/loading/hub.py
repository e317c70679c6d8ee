"""Models from the Hugging Face hub, or a mirror of it, into the standard cache.

    ask what is there (own request, one deadline) ─▶ choose files ─▶ huggingface_hub fetches them ─▶ snapshot folder

Does not know networks. Invariants: only needed files are fetched, and no code; a hub that does not answer costs at most
DEADLINE seconds, less when the model is already here; nothing is fetched offline. No torch. Called by: resolve.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading.cache_layout import cached_snapshot, is_imported
from vllm.loading.download import DISK
from vllm.loading.files import wanted
from vllm.loading.reach import Answer, Unreachable, get
from vllm.loading.ways_out import NotFetchedError, not_fetched
from vllm.util import env
from vllm.util.arith import human_bytes
from vllm.util.log import get_logger

log = get_logger(__name__)
DEADLINE = 8.0
"""Seconds to wait for the hub's first answer."""
DEADLINE_CACHED = 3.0
"""The same when the model is already in the cache and only news are asked for."""
_FETCHERS = 4


def fetch(
    repo: str,
    revision: str | None,
    cache_dir: str | None,
    token: str | bool | None,
    weights: bool,
    load_format: str,
    endpoint: str | None = None,
) -> Path:
    """The snapshot of `repo` in the cache, fetched as far as it is not there. Raises ModelNotFoundError.

    `endpoint` is another hub than HF_ENDPOINT names.
    """
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache()
    here = cached_snapshot(cache, repo, revision, weights)
    if here is not None and is_imported(here):
        return here  # why: it came from a folder or an address; no hub knows it
    if env.flag("HF_HUB_OFFLINE") or env.flag("TRANSFORMERS_OFFLINE"):
        if here is None:
            raise not_fetched(repo, f"HF_HUB_OFFLINE is set and {repo} is not (whole) in the cache {cache}")
        return here
    endpoint = (endpoint or env.text("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    secret = find_token(token)
    url = f"{endpoint}/api/models/{repo}/revision/{quote(revision or 'main', safe='')}?blobs=true"
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        answer = get(url, DEADLINE if here is None else DEADLINE_CACHED, headers)
        if answer.status >= 500 or answer.status == 429:
            busy = Unreachable(f"it answered with status {answer.status}")
            busy.wait = _seconds(answer.headers.get("retry-after"))
            raise busy
        if not _is_json(answer):
            # why: a proxy's page or a sign-in portal must not be taken for the hub's word
            raise Unreachable(f"something that is no hub answered for it (status {answer.status})")
    except Unreachable as error:
        if here is not None:
            log.warning("%s cannot be reached (%s); using %s from the cache", endpoint, error, here)
            return here
        happened = (
            f"{repo} is neither a folder here nor in the cache {cache}, and {endpoint} cannot be reached: {error}"
        )
        refusal = not_fetched(repo, happened)
        if error.wait is not None:
            refusal.may_pass, refusal.wait = True, error.wait
        raise refusal from None
    listing = _listing(answer, repo, revision, endpoint, bool(secret))
    files = wanted((entry["rfilename"] for entry in listing["siblings"]), weights, load_format)
    if "config.json" not in files:
        raise ModelNotFoundError(
            f"{repo} on {endpoint} has no config.json: it is not a model that transformers describes"
        )
    commit = listing.get("sha")
    if here is not None and here.name == commit and all((here / name).exists() for name in files):
        return here
    _check_space(repo, cache, listing["siblings"], files)
    return _download(repo, revision, cache, endpoint, secret, files)


def default_cache() -> Path:
    """The hub's standard cache folder."""
    if env.text("HF_HUB_CACHE"):
        return Path(str(env.text("HF_HUB_CACHE"))).expanduser()
    return _home() / "hub"


def _home() -> Path:
    base = env.text("HF_HOME") or f"{env.text('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(base).expanduser()


def find_token(token: str | bool | None) -> str | None:
    """The token to show: the one given, that of HF_TOKEN, or the one stored by `hf auth login`."""
    if isinstance(token, str):
        return token
    if token is False:
        return None
    stored = _home() / "token"
    said = env.text("HF_TOKEN") or env.text("HUGGING_FACE_HUB_TOKEN")
    return said or (stored.read_text("utf-8").strip() if stored.is_file() else None) or None


def _is_json(answer: Answer) -> bool:
    try:
        return isinstance(json.loads(answer.body), dict)
    except ValueError:
        return False


def _listing(answer: Answer, repo: str, revision: str | None, endpoint: str, has_token: bool) -> dict[str, Any]:
    if answer.status in (401, 403):
        raise ModelNotFoundError(_no_access(repo, endpoint, has_token))
    if answer.status == 404:
        if answer.headers.get("x-error-code") == "RevisionNotFound":
            raise ModelNotFoundError(f"{repo} on {endpoint} has no revision {revision!r}")
        raise ModelNotFoundError(
            f"{endpoint} knows no model {repo}, and there is no such folder here; check the spelling"
        )
    try:
        listing = json.loads(answer.body) if answer.status == 200 else None
        good = listing is not None and all(isinstance(s["rfilename"], str) for s in listing["siblings"])
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise not_fetched(repo, f"{endpoint} gave no list of the files of {repo} (status {answer.status})")
    assert isinstance(listing, dict)
    return listing


def _no_access(repo: str, endpoint: str, has_token: bool) -> str:
    token = (
        "the token that was sent has no access to it"
        if has_token
        else "no token was sent: set HF_TOKEN, or hf_token=..., or run `hf auth login`"
    )
    return (
        f"{repo} cannot be read: it is gated or private (or does not exist), and {token}. For a gated model accept its "
        f"licence first, at {endpoint}/{repo}. Without access: a local folder, or the built-in model (no `model`)."
    )


def _download(repo: str, revision: str | None, cache: Path, endpoint: str, token: str | None, files: list[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    def one(name: str) -> Path:
        where = hf_hub_download(
            repo, name, revision=revision, cache_dir=str(cache), token=token or False, endpoint=endpoint
        )
        return Path(where)

    log.info("fetching %d files of %s from %s", len(files), repo, endpoint)
    try:
        first = one("config.json")
        with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch") as pool:
            list(pool.map(one, [f for f in files if f != "config.json"]))
    except (GatedRepoError, RepositoryNotFoundError):
        raise ModelNotFoundError(_no_access(repo, endpoint, bool(token))) from None
    except OSError as error:
        # why: huggingface_hub's errors and httpx's are OSErrors here; disk errors (full, read-only) are too
        raise _broke_off(repo, endpoint, error) from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("huggingface_hub", "httpx", "httpx2", "hf_xet"):
            raise
        raise _broke_off(repo, endpoint, error) from None
    return first.parent


def _broke_off(repo: str, endpoint: str, error: BaseException) -> NotFetchedError:
    refusal = not_fetched(repo, f"fetching {repo} from {endpoint} broke off: {_first_line(error)}")
    refusal.may_pass = not (isinstance(error, OSError) and error.errno in DISK)
    return refusal


def _check_space(repo: str, cache: Path, siblings: list[dict[str, Any]], files: list[str]) -> None:
    """Raise ModelLoadError when what is still to fetch does not fit on the disk of the cache."""
    sizes = {s["rfilename"]: s.get("size") or 0 for s in siblings}
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    here = sum(f.stat().st_size for f in blobs.iterdir()) if blobs.is_dir() else 0
    needed = sum(sizes[name] for name in files) - here
    place = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ModelLoadError(
            f"{repo} needs {human_bytes(needed)} more on the disk of {cache}, and {human_bytes(free)} are free there; "
            f"`vllm rm` removes models, HF_HOME or download_dir names another place"
        )


def _seconds(text: str | None) -> float:
    """What Retry-After asks for, at most a minute; a date counts as one second."""
    try:
        return min(max(float(text or 1), 0.1), 60.0)
    except ValueError:
        return 1.0


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
