"""Feed-forward parts: dense MLP and mixture of experts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MLP:
    """down(act(gate(x)) * up(x)) when gated, down(act(up(x))) otherwise. `act`: silu, gelu, gelu_tanh, relu, relu2."""

    hidden: int
    inter: int
    act: str = "silu"
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True)
class MoE:
    """Each token goes to `top_k` of `num_experts` experts, weighted by the softmax of the router's logits.

    `renormalize`: the chosen weights are scaled to sum to one. The router is linear, without bias, in float32 math.
    """

    num_experts: int
    top_k: int
    expert: MLP
    renormalize: bool = True
    shared: MLP | None = None
