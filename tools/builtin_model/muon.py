"""The optimizer: orthogonalized momentum for matrices, Adam for the embedding and the norms.

The orthogonalization is the Newton-Schulz iteration of Muon (Jordan and others, 2024), batched over all matrices
of one shape; the update is scaled so that one learning rate fits both halves (Liu and others, 2025).
"""

import torch
from torch import Tensor, nn


@torch.no_grad()
def orthogonal(batch: Tensor, steps: int = 5) -> Tensor:
    """batch [n, rows, columns] -> nearly orthogonal matrices with the same singular vectors, bfloat16 on a GPU."""
    x = batch.bfloat16() if batch.is_cuda else batch
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Optimizer:
    """Holds its state in float32 tensors by parameter name."""

    def __init__(self, model: nn.Module, decay: float = 0.05) -> None:
        self.decay = decay
        self.named = dict(model.named_parameters())
        self.matrices: dict[torch.Size, list[str]] = {}
        self.others: list[str] = []
        for name, weight in self.named.items():
            if weight.dim() == 2 and "embed" not in name:
                self.matrices.setdefault(weight.shape, []).append(name)
            else:
                self.others.append(name)
        self.first = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in self.named.items()}
        self.second = {name: torch.zeros_like(self.named[name], dtype=torch.float32) for name in self.others}
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the gradients, which are then dropped."""
        self.steps += 1
        for shape, names in self.matrices.items():
            weights = [self.named[n] for n in names]
            grads = [w.grad.float() for w in weights]  # type: ignore[union-attr]
            momenta = [self.first[n] for n in names]
            torch._foreach_lerp_(momenta, grads, 0.05)
            torch._foreach_lerp_(grads, momenta, 0.95)
            update = orthogonal(torch.stack(grads)).float() * (0.2 * max(shape) ** 0.5)
            torch._foreach_mul_(weights, 1 - rate * self.decay)
            torch._foreach_add_(weights, list(update.unbind()), alpha=-rate)
        self._adam(rate)
        for weight in self.named.values():
            weight.grad = None

    def _adam(self, rate: float) -> None:
        one, two = 0.9, 0.98
        for name in self.others:
            weight, grad = self.named[name], self.named[name].grad.float()  # type: ignore[union-attr]
            first, second = self.first[name], self.second[name]
            first.lerp_(grad, 1 - one)
            second.lerp_(grad.square(), 1 - two)
            scale = (second / (1 - two**self.steps)).sqrt_().add_(1e-8)
            weight.add_(first / (1 - one**self.steps) / scale, alpha=-rate)

    def state(self) -> dict[str, Tensor]:
        """Compact enough to travel: momenta in bfloat16, which training does not notice."""
        out = {f"first.{n}": t.bfloat16() for n, t in self.first.items()}
        return out | {f"second.{n}": t for n, t in self.second.items()}

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Takes up what `state()` gave."""
        self.steps = steps
        for name, tensor in self.first.items():
            tensor.copy_(state[f"first.{name}"])
        for name, tensor in self.second.items():
            tensor.copy_(state[f"second.{name}"])
