"""Tables of cosines and sines for rotary embeddings, for every way of stretching them.

A table covers positions below `max_len`. Ways that depend on the length of the sequence (dynamic, longrope) choose
once, from `max_len`: keys in the cache are already rotated, so a choice per sequence would mix two rotations in one
softmax. Does not know: heads, models. Called by: attention modules, through `RopeTables`.
"""

import math

import torch

from vllm.ops.batch import Batch
from vllm.parts.basic import Rope, RopeScaling


def frequencies(rope: Rope, max_len: int) -> tuple[torch.Tensor, float]:
    """(inverse frequencies [dim / 2] float32, factor of cosines and sines)."""
    if rope.scaling is None:
        return _plain(rope.dim, rope.theta), 1.0
    kind = rope.scaling.kind
    if kind not in _KINDS:
        raise ValueError(f"rope scaling {kind!r} is not one of {', '.join(_KINDS)}")
    return _KINDS[kind](rope, rope.scaling, max_len)


def table(rope: Rope, max_len: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin), each [max_len, dim / 2] float32."""
    inverse, factor = frequencies(rope, max_len)
    angles = torch.arange(max_len, dtype=torch.float32)[:, None] * inverse[None, :]
    return (angles.cos() * factor).to(device), (angles.sin() * factor).to(device)


class RopeTables:
    """All tables of a model: one per distinct Rope, looked up once per step and Rope, shared by its layers."""

    def __init__(self, max_len: int, device: torch.device) -> None:
        self._max_len, self._device = max_len, device
        self._tables: dict[Rope, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, rope: Rope) -> None:
        """Compute the table of `rope` unless it is there."""
        if rope not in self._tables:
            self._tables[rope] = table(rope, self._max_len, self._device)

    def at(self, rope: Rope, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) at the batch's positions, each [T, dim / 2]."""
        found = batch.scratch.get(rope)
        if found is None:
            cos, sin = self._tables[rope]
            found = batch.scratch[rope] = (cos[batch.positions], sin[batch.positions])
        return found  # type: ignore[return-value]


def _plain(dim: int, theta: float) -> torch.Tensor:
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))


def _number(scaling: RopeScaling, name: str, default: float | None = None) -> float:
    value = scaling.get(name)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"rope scaling {scaling.kind!r} needs {name!r}")
    return float(value)  # type: ignore[arg-type]


def _linear(rope: Rope, scaling: RopeScaling, max_len: int) -> tuple[torch.Tensor, float]:
    return _plain(rope.dim, rope.theta) / _number(scaling, "factor"), 1.0


def _dynamic(rope: Rope, scaling: RopeScaling, max_len: int) -> tuple[torch.Tensor, float]:
    factor, trained = _number(scaling, "factor"), scaling.max_positions
    length = max(max_len, trained)
    stretch = factor * length / trained - (factor - 1)
    return _plain(rope.dim, rope.theta * stretch ** (rope.dim / (rope.dim - 2))), 1.0


def _llama3(rope: Rope, scaling: RopeScaling, max_len: int) -> tuple[torch.Tensor, float]:
    factor, trained = _number(scaling, "factor"), _number(scaling, "original_max_position_embeddings")
    low, high = _number(scaling, "low_freq_factor"), _number(scaling, "high_freq_factor")
    inverse = _plain(rope.dim, rope.theta)
    turns = trained * inverse / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - smooth) * inverse / factor + smooth * inverse, 1.0


def _yarn(rope: Rope, scaling: RopeScaling, max_len: int) -> tuple[torch.Tensor, float]:
    trained = _number(scaling, "original_max_position_embeddings", scaling.max_positions)
    factor = _number(scaling, "factor", scaling.max_positions / trained)
    attention = scaling.get("attention_factor")
    if attention is None:
        attention = _yarn_attention(scaling, factor)
    edges = [_number(scaling, "beta_fast", 32.0), _number(scaling, "beta_slow", 1.0)]
    # why: the dimension whose wave makes `turns` turns within the trained length
    low, high = (rope.dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(rope.theta)) for turns in edges)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    span = max(high - low, 0.001)
    ramp = ((torch.arange(rope.dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    inverse = _plain(rope.dim, rope.theta)
    return inverse / factor * ramp + inverse * (1 - ramp), float(attention)  # type: ignore[arg-type]


def _yarn_attention(scaling: RopeScaling, factor: float) -> float:
    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if mscale and all_dim:
        return scale(float(mscale)) / scale(float(all_dim))  # type: ignore[arg-type]
    return scale(1.0)


def _longrope(rope: Rope, scaling: RopeScaling, max_len: int) -> tuple[torch.Tensor, float]:
    trained = _number(scaling, "original_max_position_embeddings", scaling.max_positions)
    factor = _number(scaling, "factor", scaling.max_positions / trained)
    attention = scaling.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    name = "long_factor" if max_len > trained else "short_factor"
    stretch = torch.tensor(scaling.get(name), dtype=torch.float32)
    assert stretch.numel() == rope.dim // 2, f"{name} has {stretch.numel()} numbers for {rope.dim} dimensions"
    shape = torch.arange(0, rope.dim, 2, dtype=torch.int64).float() / rope.dim
    return 1.0 / (stretch * rope.theta**shape), float(attention)  # type: ignore[arg-type]


_KINDS = {"linear": _linear, "dynamic": _dynamic, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
