"""logits_processors: a user's own functions of (output_ids, logits) or (prompt_ids, output_ids, logits), giving logits.

They see a float32 tensor [V] and plain lists of ids. One that raises, or gives back something else than V numbers,
fails its own sequence.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from vllm.protocol.step import RowOpen
from vllm.sampling.lines import Lines


class Processors:
    """Keeps, per row, its functions and whether each takes the prompt."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[list[tuple[Callable[..., Any], bool]], int]] = {}

    def wants(self, row: RowOpen) -> bool:
        return bool(row.sampling.logits_processors)

    def open(self, row: RowOpen) -> None:
        functions = row.sampling.logits_processors
        assert functions
        self._rows[row.row] = [(f, _takes_prompt(f)) for f in functions], row.prompt_len

    def close(self, row: int) -> None:
        del self._rows[row]

    def apply(self, logits: torch.Tensor, lines: Lines, which: list[int], failed: dict[int, str]) -> None:
        for n in which:
            row = lines.rows[n]
            functions, prompt_len = self._rows[row]
            known = lines.tokens[row, : lines.lens[n]].tolist()
            for function, takes_prompt in functions:
                past = (known[:prompt_len], known[prompt_len:]) if takes_prompt else (known[prompt_len:],)
                try:
                    logits[n] = _checked(function(*past, logits[n]), logits[n])
                except Exception as error:  # why: user code may raise anything, and only its own sequence may pay
                    name = type(error).__name__
                    failed[n] = f"logits processor {_name(function)} raised {name}: {error}"
                    break


def _checked(result: object, line: torch.Tensor) -> torch.Tensor:
    if not isinstance(result, torch.Tensor) or result.shape != line.shape:
        got = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(f"it must return a tensor of shape {tuple(line.shape)}, got {got}")
    return result.to(line.device, line.dtype)


def _takes_prompt(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) >= 3


def _name(function: object) -> str:
    return (
        str(vars(type(function)).get("__name__") or type(function).__name__)
        if not inspect.isroutine(function)
        else function.__name__
    )
