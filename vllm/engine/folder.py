"""What the front takes from a model's folder: the folder itself, the tokenizer, the sampling defaults.

Does not know: networks, plans, devices, HTTP. Invariant: no torch, since a server's front has none. Called by:
assembly (offline), front (server).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm.config.args import EngineArgs
from vllm.engine.deliver import MakeDecoder, TokenText
from vllm.errors import ModelLoadError
from vllm.sampling_params import SamplingParams


def find_folder(args: EngineArgs, weights: bool = True) -> Path:
    """The model's local folder; the built-in model where none is named."""
    if args.model is None:
        return Path(__file__).parent.parent / "builtin"
    from vllm.loading.resolve import resolve_model

    return resolve_model(
        args.model,
        revision=args.revision,
        download_dir=args.download_dir,
        token=args.hf_token,
        weights=weights,
        load_format=args.load_format,
    )


def tokenizer_folder(args: EngineArgs, folder: Path) -> Path:
    """Where the tokenizer's files are: the model's folder, or what `tokenizer` names."""
    from vllm.tokenizer.load import has_tokenizer

    where = folder
    if args.tokenizer is not None and has_tokenizer(args.tokenizer):
        where = Path(args.tokenizer)  # a tokenizer alone: no config.json is wanted
    elif args.tokenizer is not None:
        from vllm.loading.resolve import resolve_model

        where = resolve_model(args.tokenizer, revision=args.tokenizer_revision, token=args.hf_token, weights=False)
    return where


def load_tokenizer(args: EngineArgs, folder: Path) -> Any:
    """The model's tokenizer, or the one that `tokenizer` names."""
    from vllm.chat.template import with_chat
    from vllm.tokenizer.load import load

    where = tokenizer_folder(args, folder)
    return with_chat(load(where, mode=args.tokenizer_mode, trust_remote_code=args.trust_remote_code))


def compiler_words(args: EngineArgs, folder: Path, num_logits: int) -> dict[str, Any]:
    """What a compiler of grammars must know of the model, as plain data: it may run in any process."""
    return {
        "folder": str(tokenizer_folder(args, folder)),
        "num_logits": num_logits,
        "mode": args.tokenizer_mode,
        "trust_remote_code": args.trust_remote_code,
    }


def decoder_maker(tokenizer: Any) -> MakeDecoder | None:
    """Incremental detokenisers for this tokenizer."""
    if tokenizer is None:
        return None
    from vllm.tokenizer.detokenizer import Detokenizer

    def make(prompt_ids: Sequence[int], params: SamplingParams, shown: frozenset[int] = frozenset()) -> Detokenizer:
        return Detokenizer(
            tokenizer,
            prompt_ids,
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
            shown_ids=shown,
        )

    return make


def token_text(tokenizer: Any) -> TokenText:
    """The text of single tokens, remembered: logprobs ask for the same ones again and again. Put together they are the
    whole text, but for characters of several tokens and a space that the whole loses at its start."""
    known: dict[int, str] = {}

    def text(token: int) -> str:
        found = known.get(token)
        if found is None:
            found = known[token] = tokenizer.token_bytes(token).decode("utf-8", "replace")
        return found

    return text


def generation_config(args: EngineArgs, folder: Path) -> dict[str, Any]:
    """generation_config.json, from the folder that was asked for. End ids come from it also with "vllm"."""
    where = folder if args.generation_config in ("auto", "vllm") else Path(args.generation_config)
    found = _json(where / "generation_config.json")
    if args.generation_config == "vllm":
        found = {key: value for key, value in found.items() if key.endswith("_token_id")}
    if "eos_token_id" not in found:
        stated = _json(folder / "config.json").get("eos_token_id")
        if stated is not None:
            found["eos_token_id"] = stated
    return {**found, **(args.override_generation_config or {})}


def default_sampling(args: EngineArgs, generation: dict[str, Any]) -> dict[str, Any]:
    """Keywords of the SamplingParams that are used where a caller gives none."""
    given = SamplingParams.from_generation_config(generation)
    plain = SamplingParams()
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")
    return {name: getattr(given, name) for name in names if getattr(given, name) != getattr(plain, name)}


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read as JSON: {error}") from None
    return data if isinstance(data, dict) else {}
