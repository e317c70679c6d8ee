"""The numbers of rotary embeddings: one frequency per pair of dimensions, stretched as the description says.

Plain Python on at most a few hundred numbers, so that planning, tests and layers read the same values. Does not know
tensors. Invariant: the result depends on the description and the engine's longest sequence alone, never on the length
of one request: kinds whose published code switches with the sequence (dynamic, longrope) are fixed at start, by
`max_len`, so that a token's key does not depend on who comes later. Called by: layers (once, at build).
"""

import math

from vllm.errors import ModelLoadError
from vllm.parts.basic import Rope, RopeScaling

KINDS = ("linear", "dynamic", "llama3", "yarn", "longrope")


def frequencies(rope: Rope, max_len: int) -> tuple[list[float], float]:
    """(radians per position of each of the dim/2 pairs, factor on cos and sin) for sequences up to `max_len` tokens."""
    s = rope.scaling
    if s is None:
        return _plain(rope.dim, rope.theta), 1.0
    if s.kind == "linear":
        factor = _number(s, "factor")
        return [f / factor for f in _plain(rope.dim, rope.theta)], 1.0
    if s.kind == "dynamic":
        return _dynamic(rope, s, max_len), 1.0
    if s.kind == "llama3":
        return _llama3(rope, s), 1.0
    if s.kind == "yarn":
        return _yarn(rope, s), _yarn_magnitude(s)
    if s.kind == "longrope":
        return _longrope(rope, s, max_len), _longrope_magnitude(s)
    raise ModelLoadError(f"rotary scaling of kind {s.kind!r} is not known; known are {', '.join(KINDS)}")


def original_positions(s: RopeScaling) -> int:
    """Positions the model was trained on before its rotary embedding was stretched."""
    return int(_number(s, "original_max_position_embeddings", s.max_positions))


def _number(s: RopeScaling, name: str, default: float | None = None) -> float:
    value = s.get(name)
    value = default if value is None else value
    if not isinstance(value, (int, float)):
        raise ModelLoadError(f"rotary scaling of kind {s.kind!r} needs a number {name!r} in config.json, got {value!r}")
    return float(value)


def _factors(s: RopeScaling, name: str, count: int) -> tuple[float, ...]:
    value = s.get(name)
    if not isinstance(value, tuple) or len(value) != count:
        got = len(value) if isinstance(value, tuple) else value
        raise ModelLoadError(f"rotary scaling needs {count} numbers in {name!r} of config.json, got {got!r}")
    return value


def _plain(dim: int, theta: float) -> list[float]:
    return [theta ** (-i / dim) for i in range(0, dim, 2)]


def _dynamic(rope: Rope, s: RopeScaling, max_len: int) -> list[float]:
    factor, base, d = _number(s, "factor"), s.max_positions, rope.dim
    stretch = factor * max(max_len, base) / base - (factor - 1)
    return _plain(d, rope.theta * stretch ** (d / (d - 2)))


def _llama3(rope: Rope, s: RopeScaling) -> list[float]:
    factor, old = _number(s, "factor"), original_positions(s)
    low, high = _number(s, "low_freq_factor"), _number(s, "high_freq_factor")
    result = []
    for f in _plain(rope.dim, rope.theta):
        turns = old * f / (2 * math.pi)
        # why: above `high` turns in the old context a pair is kept, below `low` it is stretched, between it is mixed
        keep = min(max((turns - low) / (high - low), 0.0), 1.0)
        result.append(f * (keep + (1 - keep) / factor))
    return result


def _yarn_factor(s: RopeScaling) -> float:
    return _number(s, "factor", s.max_positions / original_positions(s))


def _yarn(rope: Rope, s: RopeScaling) -> list[float]:
    factor, old, d = _yarn_factor(s), original_positions(s), rope.dim

    def pair_of(turns: float) -> float:
        return d * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_of(_number(s, "beta_fast", 32)), pair_of(_number(s, "beta_slow", 1))
    if s.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    width = (high - low) or 0.001
    result = []
    for i, f in enumerate(_plain(d, rope.theta)):
        stretch = min(max((i - low) / width, 0.0), 1.0)
        result.append(f / factor * stretch + f * (1 - stretch))
    return result


def _yarn_magnitude(s: RopeScaling) -> float:
    if s.get("attention_factor") is not None:
        return _number(s, "attention_factor")
    factor = _yarn_factor(s)

    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if s.get("mscale") and s.get("mscale_all_dim"):
        return magnitude(_number(s, "mscale")) / magnitude(_number(s, "mscale_all_dim"))
    return magnitude(1.0)


def _longrope(rope: Rope, s: RopeScaling, max_len: int) -> list[float]:
    name = "long_factor" if max_len > original_positions(s) else "short_factor"
    factors = _factors(s, name, rope.dim // 2)
    return [f / x for f, x in zip(_plain(rope.dim, rope.theta), factors, strict=True)]


def _longrope_magnitude(s: RopeScaling) -> float:
    if s.get("attention_factor") is not None:
        return _number(s, "attention_factor")
    old = original_positions(s)
    factor = _number(s, "factor", s.max_positions / old)
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(old))
