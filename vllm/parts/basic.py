"""The smallest parts: norms, rotary embeddings and their scaling. Frozen descriptions; no torch, no weights."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS or layer normalisation over the last dimension.

    `plus_one`: the stored weight is an offset from one (Gemma). `affine` False: no parameters at all (OLMo 1).
    A norm of query or key whose `dim` equals the head size works per head; one of heads x head size works on the row.
    """

    dim: int
    eps: float = 1e-5
    kind: str = "rms"
    affine: bool = True
    bias: bool = False
    plus_one: bool = False


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched: `kind` is linear, dynamic, llama3, yarn or longrope; `values` its numbers.

    Values keep Hugging Face's names (factor, low_freq_factor, short_factor, ...); sequences are tuples.
    """

    kind: str
    values: tuple[tuple[str, object], ...]
    max_positions: int
    """The model's max_position_embeddings: longrope and dynamic need it."""

    def get(self, name: str, default: object = None) -> object:
        """A value by name, or `default`."""
        return dict(self.values).get(name, default)


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding on the first `dim` of each head's dimensions.

    `interleaved` pairs (0,1),(2,3).. as GLM and GPT-J do; otherwise the first half pairs with the second.
    """

    dim: int
    theta: float = 10000.0
    interleaved: bool = False
    scaling: RopeScaling | None = None
