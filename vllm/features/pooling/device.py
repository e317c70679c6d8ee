"""The device's side: keeps, per row, what its states have come to, and gives the vector when the prompt is over.

Sums are float64, so that chunks of any size give the same float32. Called by: the runner, as a Head.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch

from vllm.features.pooling.manifest import KEY
from vllm.protocol.step import RowOpen


@dataclass(slots=True)
class _Row:
    prompt_len: int
    kind: str
    normalize: bool
    dimensions: int | None
    total: torch.Tensor | None = None
    kept: list[torch.Tensor] = field(default_factory=list)


class PoolingHead:
    """See the module."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}

    def wants(self, row: RowOpen) -> bool:
        return KEY in row.features

    def open(self, row: RowOpen) -> None:
        self._rows[row.row] = _Row(row.prompt_len, **cast(dict[str, Any], row.features[KEY]))

    def close(self, row: int) -> None:
        self._rows.pop(row, None)

    def read(self, row: int, first: int, states: torch.Tensor) -> bytes | None:
        """The bytes of the float32 vector [E], or [T, E] for all tokens, once the last prompt token is among them."""
        r = self._rows[row]
        states = states[: r.prompt_len - first]
        if not states.shape[0]:
            return None
        is_last = first + states.shape[0] == r.prompt_len
        if r.kind == "mean":
            here = states.double().sum(0)
            r.total = here if r.total is None else r.total + here
        elif r.kind == "all":
            r.kept.append(states.float())
        elif r.kind == "cls" and first == 0:
            r.kept = [states[0].float()]
        elif r.kind == "last" and is_last:
            r.kept = [states[-1].float()]
        return _bytes(self._vector(r), r) if is_last else None

    @staticmethod
    def _vector(r: _Row) -> torch.Tensor:
        if r.total is not None:
            return (r.total / r.prompt_len).float()
        return torch.cat(r.kept) if r.kind == "all" else r.kept[0]


def _bytes(vector: torch.Tensor, r: _Row) -> bytes:
    if r.dimensions is not None:
        vector = vector[..., : r.dimensions]
    if r.normalize:
        vector = torch.nn.functional.normalize(vector, dim=-1)
    return vector.contiguous().cpu().numpy().tobytes()
