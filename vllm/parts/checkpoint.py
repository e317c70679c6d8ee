"""How a checkpoint's tensors become ours, as data: renamings with stacking, and a few ways to unpack a tensor.

A rule's source is a name pattern: ``{i}`` is a layer, ``{e}`` an expert, ``{a|b|c}`` one of several names that become
pieces 0, 1, 2 of a stacked tensor. Its target is one of our names (see `tensors.py`) with the same ``{i}``::

    Rule("model.layers.{i}.self_attn.{q|k|v}_proj.weight", "layers.{i}.mixer.qkv.weight")
    Rule("transformer.h.{i}.attn.c_attn.weight", "layers.{i}.mixer.qkv.weight", unpack="transpose")

A source without alternatives fills the whole target (all pieces are already stacked in our order). With ``{e}`` the
tensor is row e of the target's first dimension. Unpackers live in `loading/unpack.py` under the name given here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of checkpoint names and where it goes. `unpack` names a function on the tensor, "" for none."""

    source: str
    target: str
    unpack: str = ""


@dataclass(frozen=True, slots=True)
class Weights:
    """All rules of an architecture; of those that match a name, the first whose target the description has counts.

    `prefixes` are optional heads of names, tried in order ("model." may or may not be there).
    `ignore` are patterns, in the same language, of names that are no parameters (rotary frequencies, masks).
    """

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("",)
    ignore: tuple[str, ...] = ()


_ALTERNATIVES = re.compile(r"\{([^{}]*\|[^{}]*)\}")


def sources(weights: Weights, target: str) -> Iterator[tuple[str, ...]]:
    """Checkpoint names that could fill `target`: per prefix and rule those of its pieces, in order.

    Experts stay a pattern (`{e}`).
    """
    layer = re.match(r"layers\.(\d+)\.", target)
    number = layer[1] if layer else ""
    for rule in weights.rules:
        if rule.target.replace("{i}", number) != target:
            continue
        source = rule.source.replace("{i}", number)
        pieces = _ALTERNATIVES.search(source)
        names = [source.replace(pieces[0], one) for one in pieces[1].split("|")] if pieces else [source]
        for prefix in weights.prefixes:
            yield tuple(prefix + name for name in names)


def both(source: str, target: str, unpack: str = "") -> Iterator[Rule]:
    """The rules of a layer's weight and of its bias; for a stacked target give the stem without ``.weight``."""
    yield Rule(f"{source}.weight", f"{target}.weight", unpack)
    yield Rule(f"{source}.bias", f"{target}.bias", unpack)


EMBEDDINGS = (
    Rule("embed_tokens.weight", "embed.weight"),
    *both("norm", "norm"),
    *both("lm_head", "head"),
)
ATTENTION = (
    *both("layers.{i}.self_attn.{q|k|v}_proj", "layers.{i}.mixer.qkv"),
    *both("layers.{i}.self_attn.o_proj", "layers.{i}.mixer.o"),
    Rule("layers.{i}.self_attn.q_norm.weight", "layers.{i}.mixer.q_norm.weight"),
    Rule("layers.{i}.self_attn.k_norm.weight", "layers.{i}.mixer.k_norm.weight"),
)
GATED_MLP = (
    *both("layers.{i}.mlp.{gate|up}_proj", "layers.{i}.ffn.gate_up"),
    *both("layers.{i}.mlp.down_proj", "layers.{i}.ffn.down"),
)
EXPERTS = (
    Rule("layers.{i}.mlp.gate.weight", "layers.{i}.ffn.router.weight"),
    Rule("layers.{i}.mlp.experts.{e}.{gate|up}_proj.weight", "layers.{i}.ffn.experts.gate_up"),
    Rule("layers.{i}.mlp.experts.{e}.down_proj.weight", "layers.{i}.ffn.experts.down"),
    Rule("layers.{i}.mlp.experts.gate_up_proj", "layers.{i}.ffn.experts.gate_up"),
    Rule("layers.{i}.mlp.experts.down_proj", "layers.{i}.ffn.experts.down"),
)
PRE_NORMS = (
    *both("layers.{i}.input_layernorm", "layers.{i}.pre_mixer"),
    *both("layers.{i}.post_attention_layernorm", "layers.{i}.pre_ffn"),
)
FUSED_GATE_UP = (Rule("layers.{i}.mlp.gate_up_proj.weight", "layers.{i}.ffn.gate_up.weight"),)
SANDWICH = (
    *both("layers.{i}.post_attention_layernorm", "layers.{i}.post_mixer"),
    *both("layers.{i}.pre_feedforward_layernorm", "layers.{i}.pre_ffn"),
    *both("layers.{i}.post_feedforward_layernorm", "layers.{i}.post_ffn"),
)


def hf_weights(*rules: Rule, ignore: tuple[str, ...] = ()) -> Weights:
    """Names as most decoders on the hub use them; `rules` are what this one does otherwise, and come first."""
    usual = (*EMBEDDINGS, *ATTENTION, *GATED_MLP, *PRE_NORMS)
    ignored = ("layers.{i}.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq", *ignore)
    return Weights((*rules, *usual), ("model.", ""), ignored)
