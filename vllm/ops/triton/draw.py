"""Gumbel-max on a GPU: every line is cut over programs that keep their best, a second kernel takes the best of those.

The hash is the reference's, bit for bit; ties go to the lower token id, as argmax does.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.draw import LARGEST_U, draw
from vllm.ops.table import Target
from vllm.util.arith import cdiv

_BLOCK = 4096


@triton.jit
def _mix(x, key, KEY: tl.constexpr):
    x = (x ^ (x >> 16)) * 569420461
    x = (x ^ (x >> 15)) * 1935289751
    x = x ^ (x >> 15)
    if KEY:
        x = x + key
    return x


@triton.jit
def _best(logits, keys, ids, values, tokens, V, stride, LARGEST: tl.constexpr, IDS: tl.constexpr,
          BLOCK: tl.constexpr):  # fmt: skip
    line, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    there = at < V
    logit = tl.load(logits + line * stride + at, there, float("-inf"))
    token = tl.load(ids + line * V + at, there, 0) if IDS else at.to(tl.int64)
    first = tl.load(keys + 2 * line).to(tl.uint32, bitcast=True)
    second = tl.load(keys + 2 * line + 1).to(tl.uint32, bitcast=True)
    x = token.to(tl.uint32) * 2654435761 + first
    x = _mix(_mix(x, second, True), second, False)
    u = tl.minimum((x.to(tl.int64) * 2 + 1).to(tl.float32) * (1.0 / 8589934592.0), LARGEST)
    score = logit - tl.log(-_log1p(-u))
    score = tl.where(logit == float("-inf"), float("-inf"), score)
    top = tl.max(score, 0)
    tl.store(values + line * tl.num_programs(1) + part, top)
    tl.store(tokens + line * tl.num_programs(1) + part, tl.min(tl.where(score == top, token, 1 << 62), 0))


@triton.jit
def _log1p(x):
    """log(1 + x) for x in (-1, 0): small x keeps its digits by the correction of Kahan."""
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.log(y) * (x / tl.where(y == 1.0, 1.0, y - 1.0)))


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@draw.kernel("triton", when=_on_gpu)
def draw_triton(logits_NV: torch.Tensor, keys_N2: torch.Tensor, ids_NV: torch.Tensor | None = None) -> torch.Tensor:
    """See the op."""
    lines, width = logits_NV.shape
    parts = cdiv(width, _BLOCK)
    values = logits_NV.new_empty((lines, parts))
    tokens = torch.empty((lines, parts), dtype=torch.int64, device=logits_NV.device)
    ids = tokens if ids_NV is None else ids_NV.contiguous()
    _best[(lines, parts)](
        logits_NV, keys_N2.contiguous(), ids, values, tokens, width, logits_NV.stride(0), LARGEST_U,
        ids_NV is not None, _BLOCK, num_warps=8,
    )  # fmt: skip
    if parts == 1:
        return tokens[:, 0]
    return tokens.gather(1, values.argmax(-1, keepdim=True))[:, 0]
