"""The exceptions a user can meet, and the small checks that raise them.

    VllmError
      ValidationError (ValueError)        a value the user gave is wrong: field, value, allowed, remedy
        PromptError                       a prompt of the wrong shape, or too long
        ChatTemplateError                 messages and template do not fit together
        RefusedError                      understood, and declined: the reason is in the message
      CapacityError (ValueError)          it does not fit: the message says what would
      ModelLoadError (ValueError)         the checkpoint cannot be used
        ModelNotFoundError (OSError)      no such folder, or the hub did not give it
        UnknownArchitectureError          nobody here can describe this network
        TokenizerError                    no tokenizer, or one that cannot be read
      EngineError (RuntimeError)          ours, not the user's
        EngineGenerateError               one request failed inside the engine
        EngineDeadError                   the engine is gone; the cause is in the message

Knows nothing of the rest of the package; everybody raises these. Invariant: messages are one or two plain sentences,
and a quoted value is clipped, so a hostile input cannot fill a log.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

MAX_LIST = 65536
_MAX_QUOTED = 80


def quoted(value: object) -> str:
    """`repr(value)`, clipped to 80 characters."""
    if isinstance(value, (str, bytes, list, tuple)) and len(value) > _MAX_QUOTED:
        value = value[:_MAX_QUOTED]  # why: repr of a 100 MB prompt must not be built only to be cut
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "..."


def sentence(error: BaseException) -> str:
    """What an error says, for a person: a file that may not be read is named first, without a number."""
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Let the user who runs this read it."
    return str(error)


class VllmError(Exception):
    """Root of every exception raised on purpose."""


class ValidationError(VllmError, ValueError):
    """A user's value is wrong. `field` names it, `value` is what came, `allowed` and `remedy` say what would do."""

    def __init__(self, message: str, *, field: str | None = None, value: Any = None, remedy: str | None = None):
        super().__init__(message if remedy is None else f"{message} {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy

    @classmethod
    def of(cls, field: str, value: Any, allowed: str, remedy: str | None = None) -> ValidationError:
        """The usual sentence: `field must be allowed, got value.`"""
        return cls(f"{field} must be {allowed}, got {quoted(value)}.", field=field, value=value, remedy=remedy)


class PromptError(ValidationError):
    """A prompt that cannot be read, or that is too long."""


class ChatTemplateError(ValidationError):
    """Messages that a chat template cannot render, or a template that is broken."""


class RefusedError(ValidationError):
    """An option we understand and decline, with the reason."""


class CapacityError(VllmError, ValueError):
    """Something does not fit into memory or into the context; the message names what would fit."""


class ModelLoadError(VllmError, ValueError):
    """A checkpoint that cannot be used as it is."""


class ModelNotFoundError(ModelLoadError, OSError):
    """No such local folder, and no hub gave the files."""


class UnknownArchitectureError(ModelLoadError):
    """The network is described neither here nor by the fallback."""


class TokenizerError(ModelLoadError):
    """The tokenizer is missing or cannot be read."""


class EngineError(VllmError, RuntimeError):
    """A failure on our side."""


class EngineGenerateError(EngineError):
    """One request failed inside the engine; the others go on."""


class EngineDeadError(EngineError):
    """The engine has stopped and cannot be restarted."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with a leading blank, or an empty string when nothing is near."""
    hits = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {hits[0]!r}?" if hits else ""


def check_int(field: str, value: Any, low: int, high: int, *, also: str = "") -> int:
    """`value` as a plain int within [low, high], else ValidationError. Booleans, strings and floats are not ints."""
    allowed = f"an integer in [{low}, {high}]{also}"
    if isinstance(value, bool):
        raise ValidationError.of(field, value, allowed)
    try:
        number = operator.index(value)  # why: takes numpy integers too, and no float
    except TypeError:
        raise ValidationError.of(field, value, allowed) from None
    if not low <= number <= high:
        raise ValidationError.of(field, value, allowed)
    return number


def check_float(field: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """`value` as a plain finite float within [low, high] (or (low, high] with `open_low`), else ValidationError."""
    bound = "any finite number" if math.isinf(high) and math.isinf(low) else None
    if bound is None:
        top = "inf)" if math.isinf(high) else f"{high:g}]"
        bound = f"a finite number in {'(' if open_low else '['}{low:g}, {top}"
    if isinstance(value, (bool, str, bytes)):
        raise ValidationError.of(field, value, bound)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValidationError.of(field, value, bound) from None
    if not math.isfinite(number) or not low <= number <= high or (open_low and number == low):
        raise ValidationError.of(field, value, bound)
    return number


def check_bool(field: str, value: Any) -> bool:
    """`value` as a bool, else ValidationError. Only True and False (and numpy's) are booleans."""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return bool(value)
    raise ValidationError.of(field, value, "True or False")


def check_strings(field: str, value: Any) -> list[str]:
    """A string or a list of them, as a list of non-empty strings, else ValidationError."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)) or len(items) > MAX_LIST:
        raise ValidationError.of(field, value, "a string or a list of strings")
    for item in items:
        if not isinstance(item, str) or not item:
            raise ValidationError.of(field, value, "made of non-empty strings")
    return list(items)
