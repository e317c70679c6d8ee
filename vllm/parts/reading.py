"""Readings of config.json that many architectures share: head size, activation, rotary embedding, window, whole tree.

For: keeping a model's file to what is particular about it. Does not know any one architecture; a reading that a single
model needs stays in that model's file. Invariant: a key this room does not understand is an error, never a guess.
Called by: models.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vllm.errors import ModelLoadError, quoted
from vllm.parts.basic import Norm, Rope, RopeScaling
from vllm.parts.decoder import Block, Decoder, Embedding, Head
from vllm.parts.ffn import MLP
from vllm.parts.hf import HFConfig
from vllm.parts.mixer import Attention, Heads
from vllm.parts.rope import KINDS

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def activation(c: HFConfig, *names: str) -> str:
    """Our word for the activation found under the first of `names` (default hidden_act)."""
    said = c.first(*(names or ("hidden_act",)))
    if said not in ACTIVATIONS:
        raise ModelLoadError(
            f"activation {quoted(said)} in config.json is not known; known are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[said]


def head_dim(c: HFConfig) -> int:
    """Size of one head: said, or hidden_size over heads."""
    return int(c.get("head_dim") or c.hidden_size // c.num_attention_heads)


def norm(c: HFConfig, **changes: Any) -> Norm:
    """RMS norm over the hidden size."""
    return Norm(c.hidden_size, c.rms_norm_eps, **changes)


def layer_norm(c: HFConfig, eps: float, bias: bool = True) -> Norm:
    """Layer norm over the hidden size."""
    return Norm(c.hidden_size, eps, kind="layer", bias=bias)


def mlp(
    c: HFConfig, *, bias: bool = False, gated: bool = True, inter: int | None = None, act: str = "hidden_act"
) -> MLP:
    """The dense feed-forward part; `act` is the key of its activation (hidden_act where that is missing)."""
    return MLP(c.hidden_size, inter or c.intermediate_size, activation(c, act, "hidden_act"), gated, bias)


def rope(c: HFConfig, *, kind: str = "", theta: float = 10000.0, part: float = 1.0, interleaved: bool = False) -> Rope:
    """The rotary embedding, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).

    `kind` picks one of several (full_attention, sliding_attention). `theta` is the base and `part` the share of each
    head that is turned where config.json does not say.
    """
    said = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    if isinstance(said.get(kind), Mapping):
        said = dict(said[kind])
    base = float(said.pop("rope_theta", None) or c.get("rope_theta") or theta)
    share = said.pop("partial_rotary_factor", None)
    share = float(c.get("partial_rotary_factor", part) if share is None else share)
    return Rope(int(head_dim(c) * share), base, interleaved, scaling(c, said))


def scaling(c: HFConfig, said: dict[str, Any]) -> RopeScaling | None:
    """The stretching that `said` (rope_scaling's values) describes, None for none."""
    kind = said.pop("rope_type", None) or said.get("type") or "default"
    said.pop("type", None)
    kind = "longrope" if kind == "su" else kind
    if kind == "default":
        return None
    if kind not in KINDS:
        raise ModelLoadError(f"rotary scaling {quoted(kind)} in config.json is not known; known are {', '.join(KINDS)}")
    if kind == "dynamic" and said.get("alpha"):
        raise ModelLoadError("rotary scaling 'dynamic' with 'alpha' (Hunyuan) is not supported")
    # why: Phi-3 keeps this number beside rope_scaling, not in it, and there it wins
    old = c.get("original_max_position_embeddings") or said.get("original_max_position_embeddings")
    if old:
        said["original_max_position_embeddings"] = old
    values = tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in said.items() if v is not None))
    return RopeScaling(kind, values, c.max_position_embeddings)


def max_positions(c: HFConfig) -> int:
    """Longest sequence: max_position_embeddings, times the factor where the scaling stretches from that number."""
    said = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    for nested in ("full_attention",):
        if isinstance(said.get(nested), Mapping):
            said = dict(said[nested])
    s, limit = scaling(c, said), int(c.max_position_embeddings)
    factor = s.get("factor") if s else None
    if s is None or not isinstance(factor, (int, float)):
        return limit
    if s.kind in ("linear", "dynamic"):
        return int(limit * factor)
    if s.kind == "yarn":
        old = s.get("original_max_position_embeddings")
        return max(limit, int(old * factor)) if isinstance(old, (int, float)) else int(limit * factor)
    return limit


def gqa(c: HFConfig, **changes: Any) -> Attention:
    """Attention with grouped queries, rotary embedding, scale 1/sqrt(head size); `changes` are Attention's fields."""
    d = head_dim(c)
    heads = Heads(c.num_attention_heads, c.get("num_key_value_heads", c.num_attention_heads), d)
    fields = {"scale": d**-0.5, "rope": rope(c), **changes} if "rope" not in changes else {"scale": d**-0.5, **changes}
    return Attention(c.hidden_size, heads, **fields)


def window(c: HFConfig, layer: int, default: Callable[[int], bool] = lambda i: True) -> int | None:
    """The sliding window of `layer`: by `layer_types` where config.json has them, else by `default(layer)`."""
    size = c.get("sliding_window")
    if size is None:
        return None
    types = c.get("layer_types")
    slides = types[layer] == "sliding_attention" if types else default(layer)
    return int(size) if slides else None


def decoder(
    c: HFConfig,
    block: Callable[[int], Block],
    final_norm: Norm | None,
    *,
    tied: bool = False,
    embed: Embedding | None = None,
    head: Head | None = None,
) -> Decoder:
    """The whole tree: `num_hidden_layers` blocks. `tied` is the family's default for tie_word_embeddings."""
    return Decoder(
        hidden=c.hidden_size,
        blocks=tuple(block(i) for i in range(c.num_hidden_layers)),
        embed=embed or Embedding(c.vocab_size, c.hidden_size),
        head=head or Head(tied=bool(c.get("tie_word_embeddings", tied))),
        final_norm=final_norm,
        max_positions=max_positions(c),
    )
