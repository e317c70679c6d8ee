"""Linear maps and table look-ups. T tokens, E in, O out, V vocabulary.

A kernel may keep weights in a form of its own: `pack` is called once per weight at build time and its result is what
`linear` gets. `pack` owns the weight it is given and may overwrite it, so that no second copy exists even for a moment;
`rows` looks rows of the weight up in the packed form (a tied embedding).
"""

import torch
import torch.nn.functional as F

from vllm.ops.table import Tol, op

CASES = ((1, 64, 96), (5, 256, 512), (33, 1024, 768), (256, 512, 1000))
"""(T, E, O)"""


def _pack(weight_OE: torch.Tensor) -> object:
    return weight_OE


def _rows(ids_T: torch.Tensor, packed: object) -> torch.Tensor:
    """Rows `ids_T` (int64) of the weight: [T, E]."""
    assert isinstance(packed, torch.Tensor)
    return packed.index_select(0, ids_T)


@op(tol=Tol(f32=1e-5, bf16=1e-2, f16=2e-3), cases=CASES, is_library=True, pack=_pack, rows=_rows)
def linear(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T + b, accumulated in float32, in x's dtype. `packed` is what this kernel's `pack(weight_OE)` returned."""
    assert isinstance(packed, torch.Tensor)
    return F.linear(x_TE, packed, bias_O)


@op(tol=Tol(f32=0.0, bf16=0.0, f16=0.0), cases=((1, 100, 64), (300, 1000, 32)), is_library=True)
def embedding(ids_T: torch.Tensor, table_VE: torch.Tensor) -> torch.Tensor:
    """Rows of the table: [T, E]."""
    return table_VE.index_select(0, ids_T)
