"""Tokenizer: text to ids and back, behind the method names that users of transformers know.

Does not know: chat templates' language (chat lends it a renderer), requests, torch.
Invariant: `decode` equals the joined pieces of a Detokenizer over the same ids. Callers: engine, chat, entrypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm.errors import ValidationError
from vllm.tokenizer.files import NAMED, TokenizerFiles
from vllm.tokenizer.pieces import PieceTable, piece_table

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_MAX_ID = 2**32 - 1  # why: the backend's ids are 32 bits wide


class BatchEncoding(dict[str, Any]):
    """What calling a tokenizer gives: a dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Tokenizer:
    """One loaded tokenizer. Special tokens are attributes: `bos_token`, `bos_token_id`, ... (see `files.NAMED`)."""

    is_fast = True

    def __init__(self, backend: Backend | None, files: TokenizerFiles):
        self.backend_tokenizer = backend
        self.files = files
        self.name_or_path = str(files.folder)
        self.model_max_length = files.model_max_length
        self.padding_side = str(files.config.get("padding_side") or "right")
        self.truncation_side = str(files.config.get("truncation_side") or "right")
        self.chat_template: str | dict[str, str] | None = _only(files.chat_templates)
        self.chat_renderer: Callable[..., Any] | None = None  # set by chat.template.with_chat
        self._named = dict(files.named)
        self._vocab: dict[str, int] | None = None

    # ---- text to ids -------------------------------------------------------------------------------------------------

    def encode(
        self, text: str, text_pair: str | None = None, add_special_tokens: bool = True, **options: Any
    ) -> list[int]:
        """Token ids of one text. `max_length` with `truncation=True` cuts. Raises ValidationError if it is no text."""
        return self(text, text_pair, add_special_tokens, **options)["input_ids"]  # type: ignore[no-any-return]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of many texts."""
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValidationError.of(f"texts[{index}]", text, "a string")
        try:
            return self._ids(texts, add_special_tokens)
        except (TypeError, UnicodeEncodeError):  # why: the backend takes every str but this kind
            raise ValidationError("text holds a lone surrogate, which is no character.", field="text") from None

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchEncoding:
        """`input_ids` and `attention_mask`, as lists (or numpy arrays with return_tensors="np")."""
        is_one = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        if text_pair is not None:
            rows = [self._pair(texts[0], text_pair, add_special_tokens)]
        else:
            rows = self.encode_batch(texts, add_special_tokens)
        limit = max_length if max_length is not None else self.model_max_length
        if truncation and any(len(row) > limit for row in rows):
            rows = [self._cut(one, limit, add_special_tokens) for one in texts]
        masks = [[1] * len(row) for row in rows]
        if padding:
            rows, masks = self._pad(rows, masks, max_length if padding == "max_length" else None)
        out = BatchEncoding(input_ids=rows[0] if is_one and return_tensors is None else rows)
        if return_attention_mask is not False:
            out["attention_mask"] = masks[0] if is_one and return_tensors is None else masks
        return _as_arrays(out, return_tensors)

    def _ids(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        assert self.backend_tokenizer is not None
        try:
            made = self.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # why: no `Exception`, and its class has no public name
                raise
            why = "The tokenizer gives up on a run of characters without a break that is so long."
            raise ValidationError(why, field="text", remedy="Put spaces or line breaks into it.") from None
        return [one.ids for one in made]

    def _pair(self, text: str, text_pair: str, add_special_tokens: bool) -> list[int]:
        assert self.backend_tokenizer is not None
        return self.backend_tokenizer.encode(text, text_pair, add_special_tokens=add_special_tokens).ids

    def _cut(self, text: str, limit: int, add_special_tokens: bool) -> list[int]:
        """Ids of `text`, the text's own cut so that special tokens still fit into `limit`."""
        body, whole = self._ids([text], False)[0], self._ids([text], add_special_tokens)[0]
        extra = len(whole) - len(body)
        if len(whole) <= limit:
            return whole
        start = next((i for i in range(extra + 1) if whole[i : i + len(body)] == body), 0)
        room = max(0, limit - extra)
        kept = body[len(body) - room :] if self.truncation_side == "left" else body[:room]
        return [*whole[:start], *kept, *whole[start + len(body) :]]

    def _pad(
        self, rows: list[list[int]], masks: list[list[int]], length: int | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        pad = self.pad_token_id
        if pad is None:
            raise ValidationError(
                "padding needs a pad token.", field="padding", remedy="Set tokenizer.pad_token first."
            )
        width = max([length or 0, *map(len, rows)])
        gaps = [width - len(row) for row in rows]
        if self.padding_side == "left":
            pairs = [([pad] * g + r, [0] * g + m) for g, r, m in zip(gaps, rows, masks, strict=True)]
        else:
            pairs = [(r + [pad] * g, m + [0] * g) for g, r, m in zip(gaps, rows, masks, strict=True)]
        return [row for row, _ in pairs], [mask for _, mask in pairs]

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text, as the vocabulary spells them."""
        return [self.id_to_token(i) or "" for i in self.encode_batch([text], add_special_tokens)[0]]

    # ---- ids to text -------------------------------------------------------------------------------------------------

    def decode(
        self,
        token_ids: int | Iterable[int],
        skip_special_tokens: bool = False,
        spaces_between_special_tokens: bool = True,
        **_: Any,
    ) -> str:
        """The text of ids; ids outside the vocabulary have none. No cleaning up of spaces is ever done."""
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        if skip_special_tokens:
            ids = [i for i in ids if i not in self.skipped_ids]
        table = self.pieces
        return self.decode_whole(ids, spaces_between_special_tokens) if table is None else table.text(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token is inside a text: a leading space is its own, and a part of a character is that part."""
        table = self.pieces
        piece = self.decode([token_id]) if table is None else table.piece(token_id)
        return piece.encode("utf-8", "replace") if isinstance(piece, str) else piece

    def batch_decode(
        self, sequences: Iterable[Iterable[int]], skip_special_tokens: bool = False, **_: Any
    ) -> list[str]:
        """`decode` of each."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def decode_whole(self, ids: Sequence[int], spaces_between_special_tokens: bool = True) -> str:
        """The backend's own decoding of ids, special tokens included."""
        assert self.backend_tokenizer is not None
        return self.backend_tokenizer.decode([i for i in ids if 0 <= i <= _MAX_ID], skip_special_tokens=False)

    @cached_property
    def pieces(self) -> PieceTable | None:
        """The table that turns each id into its own bytes, where the decoder is of a kind that allows it."""
        return piece_table(self.decoder_state(), self.id_to_token)

    def decoder_state(self) -> dict[str, Any] | None:
        """The backend's description of its decoder, None when it has none."""
        import json

        assert self.backend_tokenizer is not None
        decoder = self.backend_tokenizer.decoder
        return None if decoder is None else json.loads(decoder.__getstate__())

    # ---- vocabulary --------------------------------------------------------------------------------------------------

    def id_to_token(self, token_id: int) -> str | None:
        """The vocabulary's spelling of an id, None outside it."""
        assert self.backend_tokenizer is not None
        return self.backend_tokenizer.id_to_token(token_id) if 0 <= token_id <= _MAX_ID else None

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None when it is not in the vocabulary."""
        assert self.backend_tokenizer is not None
        return self.backend_tokenizer.token_to_id(token)

    def convert_ids_to_tokens(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> Any:
        """id_to_token of one id or of many."""
        if isinstance(ids, int):
            return self.id_to_token(ids)
        return [self.id_to_token(int(i)) for i in ids if not (skip_special_tokens and i in self.skipped_ids)]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of one token or of many; unknown ones get the unk id."""
        if isinstance(tokens, str):
            found = self.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        """The text of tokens."""
        return self.decode(i for i in map(self.token_to_id, tokens) if i is not None)

    def get_vocab(self) -> dict[str, int]:
        """token -> id, added tokens included."""
        if self._vocab is None:
            self._vocab = self._read_vocab()
        return self._vocab

    def get_added_vocab(self) -> dict[str, int]:
        """token -> id of added tokens."""
        return self._read_added()

    def _read_vocab(self) -> dict[str, int]:
        assert self.backend_tokenizer is not None
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def _read_added(self) -> dict[str, int]:
        assert self.backend_tokenizer is not None
        return {token.content: i for i, token in self.backend_tokenizer.get_added_tokens_decoder().items()}

    def _read_special_ids(self) -> set[int]:
        assert self.backend_tokenizer is not None
        return {i for i, token in self.backend_tokenizer.get_added_tokens_decoder().items() if token.special}

    def __len__(self) -> int:
        if self.backend_tokenizer is None:
            return len(self.get_vocab())
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary without added ones."""
        if self.backend_tokenizer is None:
            return len(self.get_vocab()) - len(self.get_added_vocab())
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    @cached_property
    def max_token_id(self) -> int:
        """The largest id that means something."""
        return max(self.get_vocab().values(), default=-1)

    # ---- special tokens ----------------------------------------------------------------------------------------------

    @cached_property
    def skipped_ids(self) -> frozenset[int]:
        """Ids that `skip_special_tokens` leaves out."""
        return frozenset(self._read_special_ids())

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        more = {"additional_special_tokens": list(self.files.extra_special)} if self.files.extra_special else {}
        return {**self._named, **more}

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys([*self._named.values(), *self.files.extra_special]))

    @property
    def all_special_ids(self) -> list[int]:
        return [i for i in map(self.token_to_id, self.all_special_tokens) if i is not None]

    def add_special_tokens(self, tokens: dict[str, Any], **_: Any) -> int:
        """Name special tokens, adding to the vocabulary those that are not in it; returns how many were added."""
        from tokenizers import AddedToken

        before = len(self)
        for name, value in tokens.items():
            texts = [value] if isinstance(value, str) else [str(one) for one in value]
            if self.backend_tokenizer is not None:
                self.backend_tokenizer.add_special_tokens(
                    [AddedToken(t, special=True, normalized=False) for t in texts]
                )
            if name in NAMED:
                self._named[name] = texts[0]
            else:
                self.files.extra_special += [t for t in texts if t not in self.files.extra_special]
        self._vocab = None
        for name in ("skipped_ids", "max_token_id", "pieces"):
            self.__dict__.pop(name, None)
        return len(self) - before

    def __getattr__(self, name: str) -> Any:
        # why: fourteen attributes of one rule; only reached for names that are not set
        if name in NAMED:
            return self.__dict__["_named"].get(name)
        if name.endswith("_id") and name[:-3] in NAMED:
            token = self.__dict__["_named"].get(name[:-3])
            return None if token is None else self.token_to_id(token)
        raise AttributeError(f"Tokenizer has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.endswith("_id") and name[:-3] in NAMED:
            name, value = name[:-3], None if value is None else self.id_to_token(value)
        if name not in NAMED:
            object.__setattr__(self, name, value)
        elif value is None:
            self._named.pop(name, None)
        else:
            self._named[name] = str(value)

    # ---- chat --------------------------------------------------------------------------------------------------------

    def apply_chat_template(self, conversation: Any, tools: Any = None, **options: Any) -> Any:
        """Render messages; `tokenize=True` (the default) gives ids, False gives text. Needs chat's renderer."""
        assert self.chat_renderer is not None, "vllm.chat.with_chat was not called"
        return self.chat_renderer(self, conversation, tools=tools, **options)

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The template that would be used: given by name or as text, or the tokenizer's own. Raises ValidationError."""
        own = self.chat_template
        if isinstance(own, dict):
            if chat_template is not None and chat_template in own:
                return own[chat_template]
            if chat_template is None:
                name = "tool_use" if tools and "tool_use" in own else "default"
                chat_template = own.get(name)
        if chat_template is None and isinstance(own, str):
            chat_template = own
        if chat_template is None:
            raise ValidationError(
                "this model has no chat template.",
                field="chat_template",
                remedy="Pass chat_template=, or use a plain prompt instead of messages.",
            )
        return chat_template

    def __repr__(self) -> str:
        return f"Tokenizer(name_or_path={self.name_or_path!r}, vocab_size={len(self)}, special_tokens={self._named})"


def _only(templates: dict[str, str]) -> str | dict[str, str] | None:
    """One unnamed template as itself, several as a dict, none as None."""
    if set(templates) == {"default"}:
        return templates["default"]
    return dict(templates) or None


def _as_arrays(out: BatchEncoding, kind: str | None) -> BatchEncoding:
    if kind is None:
        return out
    if kind != "np":
        raise ValidationError.of("return_tensors", kind, "None or 'np'", "Wrap the lists yourself: torch.tensor(ids).")
    import numpy

    return BatchEncoding({name: numpy.array(rows) for name, rows in out.items()})
