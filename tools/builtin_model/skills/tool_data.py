"""Reads `tools.txt`."""

import functools

from tools.builtin_model.data_files import sections


@functools.cache
def words(section: str) -> list[tuple[str, str]]:
    """English words with their Chinese ones."""
    return [tuple(item.split(" ", 1)) for item in sections("tools.txt")[section][0].split(" | ")]  # type: ignore[misc]


@functools.cache
def params() -> list[tuple[list[str], str, dict[str, list[str]], str]]:
    """Parameters of composed tools: keys, kind, phrases by language, description."""
    found = []
    for line in sections("tools.txt")["params"]:
        keys, kind, english, chinese, about = line.split(" | ")
        found.append((keys.split(","), kind, {"en": english.split(";"), "zh": chinese.split(";")}, about))
    return found


@functools.cache
def openers(section: str) -> list[str]:
    """How a composed request begins."""
    return sections("tools.txt")[f"openers.{section}"][0].split(" | ")


@functools.cache
def hand_written(section: str) -> list[tuple[str, str, list[tuple[str, str, bool]], dict[str, list[str]]]]:
    """Tools with natural requests: name, description, parameters, requests by language."""
    found = []
    for line in sections("tools.txt")[section]:
        name, about, params, english, chinese = line.split(" | ")
        parsed = []
        for item in params.split(", "):
            key, kind = item.split(":")
            parsed.append((key.rstrip("?"), kind, not key.endswith("?")))
        found.append((name, about, parsed, {"en": english.split(";"), "zh": chinese.split(";")}))
    return found


@functools.cache
def taught_names() -> set[str]:
    """The hand-written tools of training; a composed one of these names is not held out."""
    return {name for name, *_ in hand_written("classic")}


@functools.cache
def reserved_names() -> set[str]:
    """The hand-written tools of the evaluation."""
    return {name for section in ("heldout.classic", "heldout.wide") for name, *_ in hand_written(section)}
