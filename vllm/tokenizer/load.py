"""A tokenizer from a folder, by the cheapest road there is.

    tokenizer.json           →  `tokenizers`, without transformers            (130 ms for 128k entries)
    vocab.json + merges.txt  →  byte-level BPE built here
    anything else            →  transformers' AutoTokenizer, imported only then

Does not know: hubs (it wants a folder), chat, models' vocabulary sizes. Invariant: no code of the folder runs unless
`trust_remote_code`. Callers: chat (which adds templates), engine, entrypoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.errors import TokenizerError
from vllm.tokenizer import bpe_files
from vllm.tokenizer.files import TokenizerFiles, read
from vllm.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_ENDS = ("add_bos_token", "add_eos_token")
_FLAGS_WIN = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


def load(
    path: str | Path,
    mode: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    **overrides: Any,
) -> Tokenizer:
    """The tokenizer of a local folder. `mode="slow"` goes through transformers.

    `overrides` replace keys of tokenizer_config.json, e.g. add_bos_token=True. Raises TokenizerError.
    """
    folder = Path(path).expanduser()
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise TokenizerError(f"There is no tokenizer folder {str(path)!r}.")
    files = read(folder)
    if files.has("tokenizer.json") and files.tokenizer_class.removesuffix("Fast") not in _FLAGS_WIN:
        # why: for all other classes tokenizer.json is what the author tested, and flags beside it are left-overs
        files.config = {key: value for key, value in files.config.items() if key not in _ENDS}
    files.config.update(overrides)
    files.are_ends_said = any(key in files.config for key in _ENDS)
    for name, value in overrides.items():
        if name in files.named and isinstance(value, str):
            files.named[name] = value
    needs_code = trust_remote_code and "auto_map" in files.config and mode != "hf"
    if mode != "slow" and not needs_code:
        backend = _backend(files)
        if backend is not None:
            return _finish(backend, files)
    if not has_tokenizer(folder) and not files.tokenizer_class:
        raise TokenizerError(
            f"{folder} has no tokenizer: none of {', '.join(_ANY_FILES)} is there. "
            "Add one of them, name another folder with tokenizer=, or pass token ids with skip_tokenizer_init=True."
        )
    from vllm.tokenizer.foreign import load_foreign

    found = load_foreign(files, trust_remote_code, revision)
    files.are_ends_said = any(key in overrides for key in _ENDS)  # why: transformers has followed the files' own
    return found if isinstance(found, Tokenizer) else _finish(found, files)


_ANY_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt", "spiece.model", "tekken.json")


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a path is a folder with tokenizer files in it."""
    return any((Path(folder).expanduser() / name).is_file() for name in _ANY_FILES)


def _backend(files: TokenizerFiles) -> Backend | None:
    """A `tokenizers` object from the files we can read ourselves, else None."""
    if files.has("tokenizer.json"):
        from tokenizers import Tokenizer as Backend

        try:
            return Backend.from_file(str(files.folder / "tokenizer.json"))
        except Exception as error:  # why: the library raises bare Exception
            raise TokenizerError(f"{files.folder / 'tokenizer.json'} cannot be read: {error}.") from None
    if files.has("vocab.json") and files.has("merges.txt"):
        if files.model_type == "opt":
            # why: OPT's files name these only in its tokenizer_config.json, which mirrors often leave out
            files.config.setdefault("add_bos_token", True)
            files.are_ends_said = True
            for name, text in {
                "bos_token": "</s>",
                "eos_token": "</s>",
                "unk_token": "</s>",
                "pad_token": "<pad>",
            }.items():
                files.named.setdefault(name, text)
        elif files.model_type in ("gpt2", "") and "eos_token" not in files.named:
            for name in ("bos_token", "eos_token", "unk_token"):
                files.named.setdefault(name, "<|endoftext|>")
        return bpe_files.build(files.folder, bool(files.config.get("add_prefix_space", False)))
    return None


def _finish(backend: Backend, files: TokenizerFiles) -> Tokenizer:
    """Add the special tokens and begin/end rules that the config files ask for."""
    backend.no_truncation()
    backend.no_padding()
    for name, token_id in files.named_ids.items():
        text = backend.id_to_token(token_id)
        if text is not None:
            files.named.setdefault(name, text)
    _add_tokens(backend, files)
    if files.are_ends_said:
        _set_ends(backend, files)
    return Tokenizer(backend, files)


def _add_tokens(backend: Backend, files: TokenizerFiles) -> None:
    """Tokens of the config files that tokenizer.json lacks, or holds with other flags."""
    from tokenizers import AddedToken

    have = backend.get_added_tokens_decoder()
    texts = {token.content for token in have.values()}
    named = set(files.named.values()) | set(files.extra_special)
    for token_id, said in sorted(files.added.items()):
        flags = {flag: bool(said[flag]) for flag in _FLAGS if flag in said}
        content = str(said.get("content", ""))
        if content in named:
            flags["special"] = True
        old = have.get(token_id)
        is_same = old is not None and all(getattr(old, flag) == value for flag, value in flags.items())
        if content and not (is_same and old is not None and old.content == content):
            backend.add_tokens([AddedToken(content, **flags)])
            texts.add(content)
    missing = [text for text in [*files.named.values(), *files.extra_special] if text not in texts]
    if missing:
        backend.add_special_tokens(
            [AddedToken(text, special=True, normalized=False) for text in dict.fromkeys(missing)]
        )


def _set_ends(backend: Backend, files: TokenizerFiles) -> None:
    """Replace the post-processor by what add_bos_token and add_eos_token say.

    why: many Llama-class folders carry a tokenizer.json whose own rule contradicts these flags; their models were
    trained and published with readers that followed the flags.
    """
    from tokenizers import processors

    bos = files.named.get("bos_token") if files.config.get("add_bos_token") else None
    eos = files.named.get("eos_token") if files.config.get("add_eos_token") else None
    single = [*([f"{bos}:0"] if bos else []), "$A:0", *([f"{eos}:0"] if eos else [])]
    pair = [*single, *([f"{bos}:1"] if bos else []), "$B:1", *([f"{eos}:1"] if eos else [])]
    tokens = [(text, backend.token_to_id(text)) for text in dict.fromkeys(t for t in (bos, eos) if t)]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
