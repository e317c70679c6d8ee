"""What a knob is: a dataclass field that also says its meaning, kind, range and short flag.

For: one description from which come validation, the command line and its help. Does not know: any particular knob.
Invariant: `settle` leaves only values of the declared kind in a section. Called by: the sections, args, cli.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from vllm.errors import ValidationError, check_bool, check_float, check_int, nearest

KINDS = ("bool", "int", "float", "str", "strings", "json", "any")


@dataclass(frozen=True, slots=True)
class Knob:
    """The description of one field. `words` are strings allowed beside the numbers of an int knob."""

    help: str
    kind: str
    low: float = 0
    high: float = 2**63 - 1
    open_low: bool = False
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    short: str | None = None


def knob(default: Any, kind: str, help: str, *, repr: bool = True, **more: Any) -> Any:
    """A dataclass field with a Knob. None is always allowed and means the default."""
    assert kind in KINDS, kind
    return field(default=default, repr=repr, metadata={"knob": Knob(help, kind, **more)})


def knobs_of(section: Any) -> dict[str, Knob]:
    """Field name -> Knob, in order, of a section class or instance."""
    return {f.name: f.metadata["knob"] for f in fields(section)}


def settle(section: Any) -> None:
    """Check every field of a frozen section and put the plain value in its place; None is the default.

    Raises ValidationError.
    """
    for f in fields(section):
        value = getattr(section, f.name)
        plain = f.default if value is None else settled(f.name, value, f.metadata["knob"])
        object.__setattr__(section, f.name, plain)


def settled(name: str, value: Any, k: Knob) -> Any:
    """`value` as the knob wants it, else ValidationError naming field, value and what is allowed."""
    if k.words and isinstance(value, str) and value in k.words:
        return value
    if k.kind == "bool":
        return check_bool(name, value)
    if k.kind == "int":
        also = f" or {', '.join(map(repr, k.words))}" if k.words else ""
        return check_int(name, value, int(k.low), int(k.high), also=also)
    if k.kind == "float":
        return check_float(name, value, k.low, k.high, open_low=k.open_low)
    if k.kind == "str":
        return _text(name, value, k)
    if k.kind == "strings":
        return _texts(name, value)
    if k.kind == "json":
        return _json(name, value)
    return value


def _text(name: str, value: Any, k: Knob) -> str:
    if hasattr(value, "__fspath__"):
        value = value.__fspath__()
    if not isinstance(value, str):
        # why: `dtype=torch.bfloat16` is common; its text is "torch.bfloat16" and no import of torch is needed
        value = str(value).removeprefix("torch.") if type(value).__module__ == "torch" else value
        if not isinstance(value, str):
            raise ValidationError.of(
                name, value, "a string" + (f", one of {', '.join(k.choices)}" if k.choices else "")
            )
    if k.choices and value not in k.choices:
        raise ValidationError.of(
            name, value, f"one of {', '.join(k.choices)}", nearest(value, k.choices).strip() or None
        )
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValidationError.of(name, value, "a string or a list of strings")
    return tuple(items)


def _json(name: str, value: Any) -> Any:
    """A dict, or a string of JSON that is one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValidationError.of(name, value, "a dict or a JSON object") from None
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if not isinstance(value, Mapping):
        raise ValidationError.of(name, value, "a dict or a JSON object")
    return dict(value)
