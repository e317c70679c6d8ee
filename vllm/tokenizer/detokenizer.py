"""Text from tokens as they come.

    append([id, ...]) -> the new text, ending at a whole character      finish() -> what was held back

Two ways: joined bytes where every token has its own (pieces.py), else decoding a short window twice. Does not know:
stop strings, requests. Invariants: without a prompt the pieces joined equal `Tokenizer.decode` of all ids; a character
is never split; of the prompt nothing is shown, but a character that it leaves unfinished is completed.
Callers: engine/deliver.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from vllm.tokenizer.pieces import PieceTable
from vllm.tokenizer.tokenizer import Tokenizer

_CONTEXT = 6  # tokens before the new ones that a window decodes, so that spacing comes out right
_MAX_HELD = 16  # tokens without a whole character after which a window shows what it has
_BROKEN = "\ufffd"


class Detokenizer:
    """The text of one sequence. `prompt_ids` are only context: they decide whether a leading space is kept."""

    __slots__ = ("_stream", "append", "finish")

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
        shown_ids: frozenset[int] = frozenset(),
    ):
        """`shown_ids` are special tokens that are text all the same."""
        skipped = tokenizer.skipped_ids - shown_ids if skip_special_tokens else frozenset()
        table = tokenizer.pieces
        self._stream: _PieceStream | _WindowStream
        if table is not None:
            self._stream = _PieceStream(table, prompt_ids, skipped)
        else:
            self._stream = _WindowStream(tokenizer, prompt_ids, skipped, spaces_between_special_tokens)
        self.append = self._stream.append
        self.finish = self._stream.finish


class _PieceStream:
    """Joined bytes, decoded as far as whole characters go."""

    __slots__ = ("_cache", "_decoder", "_is_first", "_is_split", "_is_tail", "_skipped", "_strip_left", "_table")

    def __init__(self, table: PieceTable, prompt_ids: Sequence[int], skipped: frozenset[int]):
        self._table = table
        self._cache = table.cache
        self._skipped = skipped
        self._decoder = codecs.getincrementaldecoder("utf-8")(table.errors)
        has_text = not _needs_start(table) or any(table.piece(i) for i in prompt_ids if i not in skipped)
        self._is_first = not has_text  # whether the text has not begun, prompt included
        self._strip_left = 0 if has_text else table.strip[1]
        tail = _split_tail(table, prompt_ids, skipped)
        self._decoder.setstate((tail, 0))
        self._is_split = self._is_tail = bool(tail)  # holding the first bytes of a character; they are the prompt's

    def append(self, ids: Sequence[int]) -> str:
        """The text that `ids` add."""
        text = ""
        for token_id in ids:
            if token_id in self._skipped:
                continue
            if self._is_first or self._is_tail:
                piece: str | bytes | None = self._begin(token_id)
            else:
                piece = self._cache.get(token_id)
            if piece is None:
                piece = self._table.piece(token_id)
            if piece.__class__ is str and not self._is_split:
                text += piece
            else:
                text += self._decode(piece)
        if self._strip_left and text:
            text, self._strip_left = self._table.stripped(text, self._strip_left)
        return text

    def _begin(self, token_id: int) -> str | bytes:
        """The piece of the first token that has one."""
        piece = self._table.piece(token_id)
        if not piece:
            return piece
        if self._is_first:
            self._is_first = False
            return self._table.first_piece(token_id)
        self._is_tail = False
        first = piece.encode("utf-8")[0] if isinstance(piece, str) else piece[0]
        if not 0x80 <= first <= 0xBF:  # why: it does not go on with the prompt's character, which is then not ours
            self._decoder.reset()
            self._is_split = False
        return piece

    def _decode(self, piece: str | bytes) -> str:
        """A piece that begins or ends inside a character."""
        raw = piece.encode("utf-8") if isinstance(piece, str) else piece
        text = self._decoder.decode(raw)
        self._is_split = bool(self._decoder.getstate()[0])
        return text

    def finish(self) -> str:
        """What was held back: an unfinished character becomes U+FFFD."""
        if self._is_tail:
            self._decoder.reset()
        text = self._decoder.decode(b"", True)
        self._is_split = self._is_tail = False
        return text


class _WindowStream:
    """Decode the last few tokens with and without the new ones; the difference is the new text."""

    __slots__ = ("_ids", "_num_shown", "_shown", "_skipped", "_spaces", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], skipped: frozenset[int], spaces: bool):
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._spaces = spaces
        self._ids = self._kept(prompt_ids[-4 * _CONTEXT :])[-_CONTEXT:]  # context, then tokens not shown yet
        self._num_shown = len(self._ids)
        self._shown = tokenizer.decode_whole(self._ids, spaces).rstrip(_BROKEN)  # text of the context

    def _kept(self, ids: Sequence[int]) -> list[int]:
        """The ids that have text."""
        return [i for i in ids if i not in self._skipped and self._tokenizer.id_to_token(i) is not None]

    def append(self, ids: Sequence[int]) -> str:
        """The text that `ids` add."""
        self._ids += self._kept(ids)
        num_new = len(self._ids) - self._num_shown
        if not num_new:
            return ""
        text = self._tokenizer.decode_whole(self._ids, self._spaces)
        if text.endswith(_BROKEN) and num_new < _MAX_HELD:
            return ""
        return self._show(text)

    def finish(self) -> str:
        """What was held back."""
        return self._show(self._tokenizer.decode_whole(self._ids, self._spaces))

    def _show(self, text: str) -> str:
        new = text[len(self._shown) :]
        self._ids = self._ids[-_CONTEXT:]
        self._num_shown = len(self._ids)
        self._shown = self._tokenizer.decode_whole(self._ids, self._spaces)
        return new


def _needs_start(table: PieceTable) -> bool:
    """Whether text looks different at its very start."""
    return bool(table.first_mark or table.strip[1])


def _split_tail(table: PieceTable, prompt_ids: Sequence[int], skipped: frozenset[int]) -> bytes:
    """The first bytes of a character that the prompt leaves unfinished (0 to 3 bytes)."""
    tail = b""
    for token_id in reversed(prompt_ids[-8:]):
        if token_id in skipped:
            continue
        piece = table.piece(token_id)
        tail = (piece.encode("utf-8") if isinstance(piece, str) else piece)[-3:] + tail
        if len(tail) >= 3 or isinstance(piece, str):
            break
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(tail)
    return decoder.getstate()[0]
