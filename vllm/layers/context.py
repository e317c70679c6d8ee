"""What every module is built from: where it runs, the chosen kernels, the mesh, the cache and the tensors.

`take` hands a tensor over and forgets it, so that a kernel which packs a weight into a form of its own leaves no second
copy behind. Knows nothing of what modules do. Called by: build.
"""

from dataclasses import dataclass

import torch

from vllm.layers.rope import RopeTables
from vllm.ops.table import Kernels
from vllm.parallel.mesh import Mesh
from vllm.protocol.kv import KVPlan


@dataclass(slots=True)
class Context:
    """Everything a module's constructor may ask for."""

    ops: Kernels
    mesh: Mesh
    weights: dict[str, torch.Tensor]
    kv_plan: KVPlan
    slabs: list[torch.Tensor]
    ropes: RopeTables
    device: torch.device
    dtype: torch.dtype
    kv_dtype: torch.dtype
    linear: str = "linear"
    """The op of linear maps: `linear`, or another where a method quantizes them."""
    comes_packed: bool = False
    """Weights of that other op come with their scales; what has none is left to `linear`. Else it packs them itself."""
    weight_block: tuple[int, int] = (0, 0)
    """Rows and columns of a weight that share a scale."""

    @property
    def whole_heads(self) -> bool:
        """`heads_attention` reads the cache that `attention` writes, and does more than call it."""
        return (
            self.kv_dtype == self.dtype
            and self.ops.names()["heads_attention"] == self.ops.names()["attention"] != "reference"
        )

    @property
    def folds(self) -> bool:
        """Maps of few rows may take in the norms around them: one device, weights that are read so, kernels for it."""
        names = self.ops.names()
        return (
            self.mesh.tp.size * self.mesh.pp.size == 1
            and self.linear in ("linear", "linear_fp8")
            and names["folded_linear"] == names[self.linear] == names["linear"] != "reference"
        )

    def take(self, name: str) -> torch.Tensor:
        """The tensor of this name; it leaves the dict. KeyError names what is missing."""
        if name not in self.weights:
            raise KeyError(f"no tensor {name!r} was loaded")
        return self.weights.pop(name)

    def take_if(self, name: str) -> torch.Tensor | None:
        """The tensor of this name, or None where the description has none."""
        return self.weights.pop(name, None)
