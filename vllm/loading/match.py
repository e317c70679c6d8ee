"""Checkpoint names to ours: the rules of `parts.checkpoint`, compiled.

Does not know tensors. Called by: loader.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache

from vllm.parts.checkpoint import Rule, Weights


@dataclass(frozen=True, slots=True)
class Match:
    """Where one checkpoint tensor goes. `piece` None: all pieces; `expert` None: not a row of an expert stack."""

    target: str
    piece: int | None
    expert: int | None
    unpack: str


_TOKEN = re.compile(r"\{([^{}]+)\}")


def _pattern(source: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """The regular expression of a name pattern, and its alternatives ({a|b})."""
    parts, alternatives = [], ()
    for k, text in enumerate(_TOKEN.split(source)):
        if k % 2 == 0:
            parts.append(re.escape(text))
        elif text in ("i", "e"):
            parts.append(rf"(?P<{text}>\d+)")
        else:
            alternatives = tuple(text.split("|"))
            parts.append(f"(?P<piece>{'|'.join(map(re.escape, alternatives))})")
    return re.compile("".join(parts)), alternatives


@cache
def _compiled(source: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    return _pattern(source)


class Matcher:
    """Finds the target of a checkpoint name. `known` are the names that the description has."""

    def __init__(self, weights: Weights, known: Collection[str]):
        self._weights = weights
        self._known = known

    def _bare(self, name: str) -> Iterator[str]:
        for prefix in self._weights.prefixes:
            if name.startswith(prefix):
                yield name[len(prefix) :]

    def ignored(self, name: str) -> bool:
        """Whether the name is no parameter."""
        return any(_compiled(p)[0].fullmatch(bare) for bare in self._bare(name) for p in self._weights.ignore)

    def find(self, name: str) -> Match | None:
        """The first rule that fits and whose target exists; None when there is none."""
        for bare in self._bare(name):
            for rule in self._weights.rules:
                match = self._apply(rule, bare)
                if match is not None and match.target in self._known:
                    return match
        return None

    def _apply(self, rule: Rule, bare: str) -> Match | None:
        pattern, alternatives = _compiled(rule.source)
        found = pattern.fullmatch(bare)
        if found is None:
            return None
        groups = found.groupdict()
        piece = alternatives.index(groups["piece"]) if alternatives else None
        expert = int(groups["e"]) if groups.get("e") is not None else None
        target = rule.target.replace("{i}", groups["i"]) if groups.get("i") else rule.target
        return Match(target, piece, expert, rule.unpack)

    def sources_of(self, target: str) -> list[str]:
        """Checkpoint names that could fill `target`, for a message: patterns with the layer put in."""
        result = []
        layer = re.match(r"layers\.(\d+)\.", target)
        for rule in self._weights.rules:
            if layer is not None and rule.target.replace("{i}", layer[1]) == target:
                result.append(self._weights.prefixes[0] + rule.source.replace("{i}", layer[1]))
            elif rule.target == target:
                result.append(self._weights.prefixes[0] + rule.source)
        return result
