"""Ways to turn a checkpoint's tensor into our layout, by name. Each takes the tensor and the target's spec.

Does not know which model asks. Invariant: the result has the shape of the target (or of one piece of it).
Called by: loader.
"""

import torch

from vllm.parts.tensors import TensorSpec


def transpose(t: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """[in, out] to [out, in] (GPT-2 keeps its linear weights the other way round)."""
    return t.t() if t.dim() == 2 else t


def heads_qkv(t: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Rows ordered head by head, q k v inside each (GPT-NeoX), to all of q, then k, then v."""
    heads = spec.pieces[0].units
    if t.shape[0] % (3 * heads):
        return t  # why: the loader's shape check says it better
    return t.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


UNPACK = {"transpose": transpose, "heads_qkv": heads_qkv}
