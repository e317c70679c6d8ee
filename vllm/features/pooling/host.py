"""The host's side: whether a model is run for embeddings, how its states become one, and what a request carries.

    runner, task, convert, pooler_config ─┐
    modules.json, 1_Pooling/config.json ──┴─▶ Recipe ── PoolingParams ─▶ SamplingParams of one token, features

The engine always makes a token; nobody sees this one. Does not know: torch, engines. Called by: assembly, the front,
entrypoints.
"""

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.errors import ModelLoadError, RefusedError, ValidationError
from vllm.features.pooling.manifest import KEY
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs

_EMBED = ("embed", "embedding")
_KINDS = {"LAST": "last", "MEAN": "mean", "CLS": "cls"}
_MODES = {"pooling_mode_lasttoken": "LAST", "pooling_mode_mean_tokens": "MEAN", "pooling_mode_cls_token": "CLS"}
_ONLY = (
    "This model was loaded for embeddings (runner='pooling'), so it takes embed, encode and score. To generate, load "
    "it with runner='generate'."
)
NOT_LOADED = (
    "This model was loaded to generate text. For embeddings load it with runner='pooling' (or task='embed'; on the "
    "command line --runner pooling)."
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model's states become an embedding."""

    kind: str = "last"
    """Which states count: those of the last token, the first (cls), or all (mean)."""
    normalize: bool = True
    size: int = 0
    lengths: tuple[int, ...] | None = ()
    """Lengths to which a vector may be cut; None: any, it was trained so that its first numbers are one too."""

    def take(self, params: PoolingParams) -> tuple[SamplingParams, dict[str, object]]:
        """What the engine is asked for, and the features of the request. Raises ValidationError, RefusedError."""
        if params.task not in (None, "embed", "token_embed"):
            raise RefusedError(f"This model makes embeddings; it has no head for {params.task}.", field="task")
        for name in ("step_tag_id", "returned_token_ids", "extra_kwargs"):
            if getattr(params, name) is not None:
                raise RefusedError(f"{name} belongs to models that are not supported yet.", field=name)
        if params.dimensions is not None:
            self._check(params.dimensions)
        kind = "all" if params.task == "token_embed" else self.kind
        normalize = self.normalize if params.use_activation is None else params.use_activation
        sampling = SamplingParams(
            temperature=0,
            max_tokens=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            truncate_prompt_tokens=params.truncate_prompt_tokens,
            # why: the states of cached tokens are not computed again
            skip_reading_prefix_cache=kind != "last" or params.skip_reading_prefix_cache,
        )
        return sampling, {KEY: {"kind": kind, "normalize": normalize, "dimensions": params.dimensions}}

    def _check(self, dimensions: int) -> None:
        if self.lengths == ():
            raise ValidationError(
                "dimensions: this model's config.json does not say that its embeddings can be shortened. If they can, "
                "load it with hf_overrides={'is_matryoshka': True}.",
                field="dimensions",
            )
        if dimensions not in (self.lengths or range(1, self.size + 1)):
            allowed = f"one of {self.lengths}" if self.lengths else f"1 to {self.size}"
            raise ValidationError.of("dimensions", dimensions, allowed)


def numbers(states: bytes | None) -> list[float]:
    """The vector that a request's states are."""
    found = array("f")
    found.frombytes(states or b"")
    return found.tolist()


def only(recipe: Recipe | None) -> tuple[str, str]:
    """The feature without which a request is refused, and the sentence; nothing where the model generates."""
    return ("", "") if recipe is None else (KEY, _ONLY)


def recipe_of(args: "EngineArgs", folder: Path) -> Recipe | None:
    """The recipe, or None where the model is to generate. Raises RefusedError for what cannot be done."""
    for name in ("task", "convert"):
        if getattr(args, name) in ("classify", "score", "reward"):
            raise RefusedError(
                f"{name}={getattr(args, name)!r}: heads for classes and scores are not supported yet; embeddings are.",
                field=name,
            )
    asked = args.runner == "pooling" or args.task in _EMBED or args.convert == "embed"
    modules = _modules(folder)
    if not asked and (args.runner, args.task, args.convert) != ("auto",) * 3:
        return None
    if not asked and "Pooling" not in modules:
        if args.pooler_config:
            raise ValidationError("pooler_config needs runner='pooling'.", field="pooler_config")
        return None
    odd = [name for name in modules if name not in ("Transformer", "Pooling", "Normalize")]
    if odd:
        raise RefusedError(f"modules.json asks for {odd[0]} behind the network, which is not supported yet.")
    said = _Said(_stored_kind(folder / modules.get("Pooling", "1_Pooling")), "Normalize" in modules or not modules)
    said.change(args.pooler_config or {})
    config = _json(folder / "config.json") or {}
    changes = args.hf_overrides
    config = changes(dict(config)) if callable(changes) else {**config, **(changes or {})}
    size = next((config[name] for name in ("hidden_size", "n_embd", "word_embed_proj_dim") if name in config), 2**20)
    stated = tuple(config.get("matryoshka_dimensions") or ())
    return Recipe(said.kind, said.normalize, size, stated or (None if config.get("is_matryoshka") else ()))


@dataclass(slots=True)
class _Said:
    kind: str
    normalize: bool

    def change(self, config: Mapping[str, Any]) -> None:
        """As vLLM's pooler_config says."""
        for name, value in config.items():
            if value is None:
                continue
            if name in ("pooling_type", "seq_pooling_type"):
                if str(value).upper() not in _KINDS:
                    raise ValidationError.of(f"pooler_config.{name}", value, f"one of {', '.join(_KINDS)}")
                self.kind = _KINDS[str(value).upper()]
            elif name in ("normalize", "use_activation"):
                self.normalize = bool(value)
            elif name != "task" or value not in ("embed", "token_embed"):
                raise RefusedError(f"pooler_config: {name} is not supported.", field="pooler_config", value=value)


def _modules(folder: Path) -> dict[str, str]:
    """Last word of each module's type -> its folder, as modules.json lists them; empty without one."""
    found = _json(folder / "modules.json")
    entries = found if isinstance(found, list) else []
    return {str(m.get("type", "")).rsplit(".", 1)[-1]: str(m.get("path", "")) for m in entries if isinstance(m, dict)}


def _stored_kind(folder: Path) -> str:
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or not config:
        return "last"
    chosen = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if isinstance(config.get("pooling_mode"), str):
        named = {"lasttoken": "LAST", "mean": "MEAN", "cls": "CLS"}.get(config["pooling_mode"], config["pooling_mode"])
    else:
        named = _MODES.get(chosen[0], chosen[0]) if len(chosen) == 1 else "+".join(chosen)
    if named not in _KINDS:
        raise RefusedError(f"{folder.name}/config.json asks for {named or 'no'} pooling; last, mean and cls are known.")
    return _KINDS[named]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read as JSON: {error}") from None
