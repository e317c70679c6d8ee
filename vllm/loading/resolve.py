"""From what the user called a model to a local folder: a path, a Hugging Face cache, or a hub id.

    path ──────────────▶ cache_layout
    name/of-a-model ───▶ hub (standard cache, mirror, offline) or modelscope

Does not know networks. Invariants: no torch, since the front asks too; what cannot be found is one message with the
ways out; another model is never taken instead. Called by: assembly.
"""

import re
from pathlib import Path

from vllm.errors import ModelNotFoundError, ValidationError, quoted
from vllm.loading import hub, modelscope
from vllm.loading.cache_layout import find_model
from vllm.util import env

BUILT_IN = Path(__file__).parent.parent / "builtin"
_ID = re.compile(r"[A-Za-z0-9_][\w.\-]{0,95}(/[A-Za-z0-9_][\w.\-]{0,95})?")


def resolve_model(
    model: str | None,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    token: str | bool | None = None,
    weights: bool = True,
    load_format: str = "auto",
) -> Path:
    """The local folder of `model`; None is the built-in model.

    With `weights` False only config and tokenizer files are needed. Raises ModelNotFoundError, ValidationError.
    """
    if model is None:
        return BUILT_IN
    path = Path(model).expanduser()
    if path.is_file():
        kind = "GGUF files are not supported yet" if path.suffix == ".gguf" else "give the folder that holds it"
        raise ModelNotFoundError(f"model {quoted(model)} is a file; {kind}")
    if path.is_dir():
        return find_model(path, revision)
    check_name(model, revision)
    weights = weights and load_format != "dummy"
    if env.flag("VLLM_USE_MODELSCOPE"):
        return modelscope.fetch(model, revision, download_dir, weights, load_format)
    return hub.fetch(model, revision, download_dir, token, weights, load_format)


def check_name(model: str, revision: str | None) -> None:
    """Raise unless `model` and `revision` have the form of a hub's names."""
    if not _ID.fullmatch(model) or ".." in model or "--" in model:
        looks = "is not there" if model.startswith(("/", ".", "~")) or model.count("/") > 1 else "is no folder here"
        raise ModelNotFoundError(f"model {quoted(model)} {looks}, and it is not the name of a model on a hub either")
    if revision is not None and not re.fullmatch(r"[\w./\-]{1,200}", revision):
        raise ValidationError.of("revision", revision, "a branch, tag or commit")
