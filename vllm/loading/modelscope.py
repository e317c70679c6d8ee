"""Models from ModelScope, with VLLM_USE_MODELSCOPE=True and the `modelscope` package.

Does not know networks. Invariants: the package is imported only here, when asked for; a hub that does not answer costs
at most DEADLINE seconds. No torch. Called by: resolve.
"""

from pathlib import Path

from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading.files import KINDS, kinds_of, weight_files
from vllm.loading.reach import Unreachable, get
from vllm.loading.ways_out import not_fetched
from vllm.util import env

DEADLINE = 8.0
_SIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_NEVER = ["*.py", "consolidated*", "original/*"]


def fetch(model: str, revision: str | None, cache_dir: str | None, weights: bool, load_format: str) -> Path:
    """The model's local folder. Raises ModelNotFoundError."""
    try:
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError:
        raise not_fetched(
            model, "VLLM_USE_MODELSCOPE is set, but the package modelscope is missing (pip install modelscope)"
        ) from None
    site = env.text("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
    offline, happened = env.flag("HF_HUB_OFFLINE"), "it is not in the cache, and HF_HUB_OFFLINE is set"
    if not offline:
        try:
            get(f"https://{site}/api/v1/models/{model}", DEADLINE)
        except Unreachable as error:
            offline, happened = True, f"https://{site} cannot be reached: {error}"

    def ask(*patterns: str) -> Path:
        """Fetch what is not here yet and fits a pattern."""
        return Path(
            snapshot_download(
                model,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=offline,
                allow_patterns=list(patterns),
                ignore_patterns=_NEVER,
            )
        )

    try:
        folder = ask(*_SIDE)
        for kind in kinds_of(load_format) if weights else ():
            folder = ask(*_SIDE, *(f"*{end}" for end in KINDS[kind][1]))
            if weight_files(folder, kind):
                break
    except ModelLoadError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise not_fetched(model, f"ModelScope did not give {model}: {happened if offline else first[:200]}") from None
    if not (folder / "config.json").exists():
        raise ModelNotFoundError(f"{model} on ModelScope has no config.json, so it is not a model folder")
    return folder
