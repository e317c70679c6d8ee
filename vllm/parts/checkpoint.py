"""How a checkpoint's tensors become ours, as data: renamings with stacking, and a few ways to unpack a tensor.

A rule's source is a name pattern: ``{i}`` is a layer, ``{e}`` an expert, ``{a|b|c}`` one of several names that become
pieces 0, 1, 2 of a stacked tensor. Its target is one of our names (see `tensors.py`) with the same ``{i}``::

    Rule("model.layers.{i}.self_attn.{q|k|v}_proj.weight", "layers.{i}.mixer.qkv.weight")
    Rule("transformer.h.{i}.attn.c_attn.weight", "layers.{i}.mixer.qkv.weight", unpack="transpose")

A source without alternatives fills the whole target (all pieces are already stacked in our order). With ``{e}`` the
tensor is row e of the target's first dimension. Unpackers live in `loading/unpack.py` under the name given here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of checkpoint names and where it goes. `unpack` names a function on the tensor, "" for none."""

    source: str
    target: str
    unpack: str = ""


@dataclass(frozen=True, slots=True)
class Weights:
    """All rules of an architecture. `prefixes` are optional heads of names ("model." may or may not be there).

    `ignore` are patterns of names that are no parameters (buffers such as rotary frequencies, masks, a tied head).
    """

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("",)
    ignore: tuple[str, ...] = ()
