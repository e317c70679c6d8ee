"""Tokenizers that only transformers can read: sentencepiece and tiktoken models, and ones that bring their own code.

Importing transformers costs seconds, so this module is imported only when nothing else fits. Most kinds come back as a
`tokenizers` object, which the rest of the room then treats like any other; pure Python ones are wrapped.
Callers: tokenizer/load.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vllm.errors import TokenizerError
from vllm.tokenizer.files import NAMED, TokenizerFiles
from vllm.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def load_foreign(files: TokenizerFiles, trust_remote_code: bool, revision: str | None) -> Backend | Tokenizer:
    """What became a `tokenizers` object, or a wrapper around the rest. Raises TokenizerError."""
    if "auto_map" in files.config and not trust_remote_code and not files.tokenizer_class:
        raise TokenizerError(
            f"The tokenizer in {files.folder} needs Python code that comes with it. "
            "Read that code, then pass trust_remote_code=True to run it."
        )
    _check_packages(files)
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(
            str(files.folder), trust_remote_code=trust_remote_code, revision=revision, local_files_only=True
        )
    except Exception as error:  # why: any class of transformers may raise anything here
        reason = str(error).strip().split("\n")[0]
        raise TokenizerError(f"transformers cannot read the tokenizer in {files.folder}: {reason}") from error
    for name in NAMED:
        value = getattr(theirs, name)
        if value is not None:
            files.named.setdefault(name, str(value))
    if theirs.is_fast:
        return theirs.backend_tokenizer
    return ForeignTokenizer(theirs, files)


def _check_packages(files: TokenizerFiles) -> None:
    """Say which package is missing, before transformers says it in a screenful. Raises TokenizerError."""
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        path = files.folder / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            is_text = file.read(1) != b"\n"  # why: a sentencepiece model is a protobuf whose first field is number 1
        wanted = ("tiktoken",) if is_text else ("sentencepiece", "google.protobuf")
        missing = [package.replace("google.", "") for package in wanted if not _is_installed(package)]
        if missing:
            kind = "tiktoken" if is_text else "sentencepiece"
            raise TokenizerError(
                f"{path} is a {kind} model, and reading it needs a package that is not installed. "
                f"Run `pip install {' '.join(missing)}`, or add a tokenizer.json to the folder."
            )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # why: find_spec imports the parent of a dotted name
        return False


class ForeignTokenizer(Tokenizer):
    """A tokenizer written in Python, behind the same surface."""

    def __init__(self, theirs: Any, files: TokenizerFiles):
        self._theirs = theirs
        super().__init__(None, files)

    def _ids(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        return [list(self._theirs.encode(text, add_special_tokens=add_special_tokens)) for text in texts]

    def _read_vocab(self) -> dict[str, int]:
        return dict(self._theirs.get_vocab())

    def _read_special_ids(self) -> set[int]:
        return {int(i) for i in self._theirs.all_special_ids}

    def _read_added(self) -> dict[str, int]:
        return dict(self._theirs.get_added_vocab())

    def id_to_token(self, token_id: int) -> str | None:
        if not 0 <= token_id <= self.max_token_id:
            return None
        token = self._theirs.convert_ids_to_tokens(token_id)
        return token if isinstance(token, str) else None

    def token_to_id(self, token: str) -> int | None:
        return self.get_vocab().get(token)

    def decode_whole(self, ids: Sequence[int], spaces_between_special_tokens: bool = True) -> str:
        known = [i for i in ids if 0 <= i <= self.max_token_id]
        return str(
            self._theirs.decode(
                known,
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
                spaces_between_special_tokens=spaces_between_special_tokens,
            )
        )

    def decoder_state(self) -> dict[str, Any] | None:
        return None
