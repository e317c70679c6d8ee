"""A model into the standard cache, whole and checked, from wherever it is.

    name/of-a-model            hub, mirror or ModelScope (loading.resolve), again and again while the hub is only busy
    https://hub/name/model     that hub's API, if it answers there; else
    https://host/folder/       config.json, the files its index names, and what tokenizers need
    https://host/model.tar.gz  an archive with a model folder in it (also .tar, .tgz, .zip)
    a folder                   its files

What comes from no hub is kept as HOST/NAME or local/NAME, with blobs named by their hash, like the rest of the cache.
Does not know networks of layers. No torch. Called by: `vllm pull`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vllm.errors import ModelLoadError
from vllm.loading import hub, imported
from vllm.loading.resolve import check_name, resolve_model
from vllm.loading.verify import wrong_files
from vllm.loading.ways_out import NotFetchedError
from vllm.util import env
from vllm.util.log import get_logger

log = get_logger(__name__)
ATTEMPTS = 6
T = TypeVar("T")


def pull(
    model: str,
    revision: str | None = None,
    cache_dir: str | None = None,
    token: str | None = None,
    name: str | None = None,
    load_format: str = "auto",
) -> tuple[str, Path]:
    """Fetch `model`, check it; returns the name to serve it by, and its folder.

    Raises ModelNotFoundError, ModelLoadError; what has arrived stays, so the next call goes on from there.
    """
    cache = Path(cache_dir).expanduser() if cache_dir else hub.default_cache()
    if Path(model).expanduser().is_dir():
        return imported.from_folder(Path(model).expanduser(), cache, name)
    if model.startswith(("http://", "https://")):
        found = imported.hub_page(model)
        if found is None:
            return again(lambda: imported.from_address(model, cache, name))
        endpoint, model, revision = found[0], found[1], revision or found[2]
    elif env.flag("VLLM_USE_MODELSCOPE"):
        # why: that package checks hashes itself, and its cache names no file by one.
        return model, resolve_model(model, revision=revision, download_dir=cache_dir, load_format=load_format)
    else:
        check_name(model, revision)
        endpoint = None

    def fetch() -> Path:
        return hub.fetch(model, revision, cache_dir, token, True, load_format, endpoint)

    return model, checked(model, again(fetch), lambda: again(fetch))


def again(fetch: Callable[[], T]) -> T:
    """`fetch()`, repeated after a growing pause while the failure may pass."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return fetch()
        except NotFetchedError as error:
            if not error.may_pass or attempt == ATTEMPTS:
                raise
            pause = max(error.wait, min(2.0 ** (attempt - 2), 30.0))
            log.warning("%s", str(error).split(". Ways out")[0])
            log.warning("Trying again in %g s (%d of %d); what has arrived is kept", pause, attempt, ATTEMPTS - 1)
            time.sleep(pause)
    raise AssertionError("unreachable")


def checked(model: str, folder: Path, fetch: Callable[[], Path]) -> Path:
    """`folder`, after every hash was compared; a wrong file is fetched once more."""
    for is_last in (False, True):
        wrong = wrong_files(folder)
        if not wrong:
            return folder
        for name in wrong:
            (folder / name).resolve().unlink(missing_ok=True)
            (folder / name).unlink(missing_ok=True)
        if is_last:
            break
        log.warning("Wrong content (its hash differs) of %s: %s; fetching again", model, ", ".join(wrong))
        folder = fetch()
    raise ModelLoadError(
        f"{model}: {', '.join(wrong)} arrived twice with content that does not fit its hash, and was removed. The "
        f"hub, a proxy or the disk is at fault: try another mirror with HF_ENDPOINT, or another network"
    )
