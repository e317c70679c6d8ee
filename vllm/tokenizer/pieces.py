"""Which bytes each token stands for, where that does not depend on its neighbours.

    ByteLevel                                      every character of a token is one byte
    Replace* , ByteFallback , Fuse , Strip?        text, and <0xE4> tokens that are one byte
    Metaspace                                      text; the very first token loses its leading mark

With such a table text is the UTF-8 decoding of joined bytes, so decoding piece by piece equals decoding at once. Other
decoders have no table (`piece_table` returns None). Does not know: special tokens, streams. Callers: tokenizer,
detokenizer.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

EACH_BYTE = "vllm.each_byte"
codecs.register_error(EACH_BYTE, lambda error: ("\ufffd" * (error.end - error.start), error.end))  # type: ignore[attr-defined]


def _byte_of_char() -> dict[str, int]:
    """The alphabet of ByteLevel: printable Latin-1 stands for itself, the other 68 bytes for characters from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(shifted)}


_BYTE_OF_CHAR = _byte_of_char()


class PieceTable:
    """id -> piece, filled as ids are met. A piece is a str when it is whole characters, else bytes."""

    def __init__(self, spell: Callable[[int], str | None], to_bytes: Callable[[str], bytes], errors: str):
        self._spell = spell
        self._to_bytes = to_bytes
        self.errors = errors  # what becomes of bytes that are not UTF-8
        self.strip: tuple[str, int] = ("", 0)  # character, and how many of it the whole text loses at its start
        self.first_mark = ""  # mark that the first token of the whole text loses
        self.cache: dict[int, str | bytes] = {}

    def piece(self, token_id: int) -> str | bytes:
        """The piece of an id; empty for ids outside the vocabulary."""
        found = self.cache.get(token_id)
        if found is None:
            found = self.cache[token_id] = self._read(self._spell(token_id))
        return found

    def first_piece(self, token_id: int) -> str | bytes:
        """The piece of an id that begins the whole text."""
        if not self.first_mark:
            return self.piece(token_id)
        token = self._spell(token_id)
        return self._read(None if token is None else token.replace(self.first_mark, ""))

    def _read(self, token: str | None) -> str | bytes:
        raw = b"" if token is None else self._to_bytes(token)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw

    def text(self, ids: Sequence[int]) -> str:
        """The text of a whole sequence."""
        pieces = [self.piece(i) for i in ids]
        if ids and self.first_mark:
            known = next((n for n, i in enumerate(ids) if self._spell(i) is not None), 0)
            pieces[known] = self.first_piece(ids[known])
        if all(p.__class__ is str for p in pieces):
            text = "".join(pieces)  # type: ignore[arg-type]
        else:
            text = b"".join(p.encode() if isinstance(p, str) else p for p in pieces).decode("utf-8", self.errors)
        return self.stripped(text, self.strip[1])[0]

    def stripped(self, text: str, left: int) -> tuple[str, int]:
        """`text` without up to `left` leading strip characters, and how many may still go."""
        char = self.strip[0]
        while left and text:
            if text[0] != char:
                return text, 0
            text, left = text[1:], left - 1
        return text, left


def piece_table(state: dict[str, Any] | None, spell: Callable[[int], str | None]) -> PieceTable | None:
    """The table for a decoder of this description, None when its tokens depend on each other."""
    if state is None:
        return None
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return PieceTable(spell, _byte_level, "replace")
    if kinds == ["Metaspace"]:
        mark = steps[0]["replacement"]
        table = PieceTable(spell, lambda token: token.replace(mark, " ").encode("utf-8"), "replace")
        table.first_mark = "" if steps[0].get("prepend_scheme") == "never" else mark
        return table
    return _fallback_table(steps, kinds, spell)


def _fallback_table(
    steps: list[dict[str, Any]], kinds: list[str], spell: Callable[[int], str | None]
) -> PieceTable | None:
    """The table of Replace*, ByteFallback, Fuse, Strip?; None for any other order."""
    num_replace = next((i for i, kind in enumerate(kinds) if kind != "Replace"), len(kinds))
    rest = kinds[num_replace:]
    if rest not in (["ByteFallback", "Fuse"], ["ByteFallback", "Fuse", "Strip"]):
        return None
    swaps = []
    for step in steps[:num_replace]:
        if "String" not in step["pattern"]:
            return None
        swaps.append((step["pattern"]["String"], step["content"]))

    def to_bytes(token: str) -> bytes:
        for old, new in swaps:
            token = token.replace(old, new)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.encode("utf-8")

    table = PieceTable(spell, to_bytes, EACH_BYTE)
    if rest[-1] == "Strip":
        strip = steps[-1]
        if strip["stop"] != 0 or len(strip["content"]) != 1:
            return None
        table.strip = (strip["content"], strip["start"])
    return table


def _byte_level(token: str) -> bytes:
    """A token whose characters are not all of the alphabet (an added token) stands for its own text."""
    try:
        return bytes([_BYTE_OF_CHAR[char] for char in token])
    except KeyError:
        return token.encode("utf-8")
