"""Stop strings in a stream of text.

    feed("Hel") -> ("He", None)      feed("lo") -> ("", "llo")        with stops = ["llo"]

The stop that *ends* first wins (of two that end together, the longer), so the answer does not depend on how the text
was cut into pieces. Text that may be the beginning of a stop is held back. Does not know: tokens. Callers:
engine/deliver.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopChecker:
    """Watches one text. `offset` is the number of characters of it that were let through."""

    __slots__ = ("_include", "_inner", "_longest", "_may_stop_from", "_pending", "_stops", "offset", "stop")

    def __init__(self, stops: Sequence[str], include: bool = False):
        assert all(stops)
        self._stops = tuple(stops)
        self._include = include
        self._longest = max(map(len, stops), default=0)
        self._inner = frozenset("".join(stop[:-1] for stop in stops))  # characters a held text can end with
        self._pending = ""  # seen but not let through, or (with include) the tail that a stop may have begun in
        self._may_stop_from = 0  # a stop that ends before this place of `_pending` does not count
        self.offset = 0
        self.stop: str | None = None

    def feed(self, text: str, is_last: bool = False, may_stop: bool = True) -> tuple[str, str | None]:
        """(what may be shown now, the stop string once it was met). After a stop nothing more is shown.

        `is_last` lets go of everything held. With `may_stop=False` (before min_tokens) stops in `text` do not count.
        """
        if self.stop is not None:
            return "", self.stop
        if not self._stops:
            self.offset += len(text)
            return text, None
        seen = self._pending + text
        if may_stop:
            found = self._find(seen)
            if found is not None:
                return self._end(seen, *found)
        else:
            self._may_stop_from = len(seen)
        num_held = 0 if is_last else self._held(seen)
        return self._let_through(seen, num_held), None

    def _find(self, seen: str) -> tuple[int, str] | None:
        """Start and text of the stop that ends first."""
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = seen.find(stop, max(0, self._may_stop_from - len(stop) + 1))
            if start >= 0:
                candidate = (start + len(stop), start, stop)
                best = candidate if best is None or candidate < best else best
        return None if best is None else (best[1], best[2])

    def _end(self, seen: str, start: int, stop: str) -> tuple[str, str]:
        end = start + len(stop) if self._include else start
        already = self._num_shown_of_pending()
        self.stop = stop
        shown = seen[already:end]
        self.offset += len(shown)
        self._pending = ""
        return shown, stop

    def _num_shown_of_pending(self) -> int:
        """With include nothing is held: `_pending` has been shown already."""
        return len(self._pending) if self._include else 0

    def _held(self, seen: str) -> int:
        """Length of the longest end of `seen` that begins a stop."""
        if not seen or seen[-1] not in self._inner:
            return 0
        for size in range(min(self._longest - 1, len(seen)), 0, -1):
            end = seen[-size:]
            if any(len(stop) > size and stop.startswith(end) for stop in self._stops):
                return size
        return 0

    def _let_through(self, seen: str, num_held: int) -> str:
        already = self._num_shown_of_pending()
        keep_from = len(seen) - num_held
        shown = seen[already:] if self._include else seen[:keep_from]
        self._pending = seen[keep_from:]
        self._may_stop_from = max(0, self._may_stop_from - keep_from)
        self.offset += len(shown)
        return shown
