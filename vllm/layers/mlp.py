"""Feed-forward parts: a dense MLP and a mixture of experts. Called by: block."""

import torch

from vllm.layers.context import Context
from vllm.layers.linear import column, row
from vllm.ops.fold import Folded, Map
from vllm.ops.moe import Apart
from vllm.ops.quantize import Quantized
from vllm.parts.ffn import MLP, MoE


class MLPLayer:
    """down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate."""

    __slots__ = ("_act", "_activate", "_down", "_multiplies", "_ops", "_quantize", "_up", "folds", "intake")

    def __init__(self, c: Context, part: MLP, name: str) -> None:
        self._up = column(c, f"{name}.gate_up" if part.gated else f"{name}.up")
        self._down = row(c, f"{name}.down")
        self._activate = c.ops.activate_mul if part.gated else c.ops.activate
        self.intake = self._up.intake
        self._quantize = c.ops.activate_mul_quantize if part.gated and self._down.intake is not None else None
        self._act, self._ops = part.act, c.ops
        plain, names = part.gated and part.act == "silu" and not part.bias, c.ops.names()
        self._multiplies = plain and c.linear == "linear" and names["linear_mul"] == names["linear"] != "reference"
        self.folds = c.folds and plain
        """`folded` may be used."""

    def __call__(self, x: torch.Tensor | Quantized) -> torch.Tensor:
        if self._multiplies:
            return self._down(self._ops.linear_mul(x, self._up.packed))
        up = self._up(x)
        if self._quantize is not None:
            return self._down(self._quantize(up, self._act, self._down.intake))
        return self._down(self._activate(up, self._act))

    def maps(self) -> list[Map]:
        """The maps."""
        return [self._up.as_map(True), self._down.alone.as_map()]

    def folded(self, f: Folded, eps: float, following: torch.Tensor) -> Folded:
        """The stream with the result added, on its way from a norm with `eps` into one with the weight `following`."""
        y = self._ops.folded_linear_mul(f, eps, self._up.packed)
        return self._ops.linear_fold(y, self._down.alone.packed, f.hidden, following)  # type: ignore[no-any-return]


class MoELayer:
    """Routed experts, each cut over tp along its inner size, and perhaps an expert that every token visits."""

    intake = None
    """The router reads tokens as they are."""

    def __init__(self, c: Context, part: MoE, name: str) -> None:
        self._part, self._axis, self._ops = part, c.mesh.tp, c.ops
        router = c.ops.helper("choose", "pack")(c.take(f"{name}.router.weight"))
        self._routing = router, part.top_k, part.renormalize
        self._up, self._down = c.take(f"{name}.experts.gate_up"), c.take(f"{name}.experts.down")
        self._shared = MLPLayer(c, part.shared, f"{name}.shared") if part.shared else None
        names = c.ops.names()
        self._whole = names["moe"] == names["choose"] == names["experts"] != "reference"
        self.folds = c.folds and part.shared is None and names["folded_moe"] == names["experts"] != "reference"
        """`folded` may be used."""
        is_whole = part.shared is None and self._axis.size == 1
        self.may_part = is_whole and names["moe_apart"] == names["experts"] != "reference"
        """Its results may be left to be added by who takes them, if they ask for that with `parts`."""
        self.parts = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor | Apart:
        part, ops = self._part, self._ops
        if self.parts:
            return ops.moe_apart(x, *self._routing, self._up, self._down, part.expert.act)  # type: ignore[no-any-return]
        if self._whole:
            y = ops.moe(x, *self._routing, self._up, self._down, part.expert.act)
        else:
            y = ops.experts(x, *ops.choose(x, *self._routing), self._up, self._down, part.expert.act)
        y = self._axis.all_reduce(y)
        return y if self._shared is None else y + self._shared(x)

    def maps(self) -> list[Map]:
        """None: experts take every number of tokens."""
        return []

    def folded(self, f: Folded, eps: float, following: torch.Tensor) -> Folded:
        """As that of a dense part."""
        act, maps = self._part.expert.act, (self._up, self._down)
        return self._ops.folded_moe(f, eps, *self._routing, *maps, act, following)  # type: ignore[no-any-return]
