"""Deterministic kernels for any torch device: a token's result is the same to the bit whoever shares its step.

Libraries choose how to add by the number of rows, so each call here has one fixed shape, filled up with rows that
nobody reads: products take tiles of 16 tokens, functions with a scalar tail go row by row, attention takes tiles of 16
positions (a token sits in row position % 16) against tiles of 256 keys from position 0 on. Slow for prompts; kernels
written for a device that keep the order by themselves (`ops/cpu`, "fixed" ones of `ops/triton`) are preferred.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from vllm.ops.activation import activate, activate_mul
from vllm.ops.attention import AttentionShape, Cache, attention, raw, write_kv
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.linear import linear
from vllm.ops.linear_fp8 import Fp8Weight, linear_fp8, linear_fp8_block, restore_weight
from vllm.ops.moe import choose, experts, route
from vllm.ops.quantize import Intake, Quantized, activate_mul_quantize, quantize, restore
from vllm.ops.softcap import softcap
from vllm.ops.table import Target

ROWS = 16
KEYS = 256
_RANK = 0.5


def _when(target: Target) -> bool:
    return target.deterministic


@linear.kernel("tiled", when=_when, rank=_RANK)
def linear_tiled(x_TE: torch.Tensor, packed: object, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """As the reference."""
    assert isinstance(packed, torch.Tensor)
    return _product(x_TE, packed, bias_O)


def _fp8(x: torch.Tensor | Quantized, packed: Fp8Weight, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """As the references."""
    x = quantize(x, packed.intake) if isinstance(x, torch.Tensor) else x
    weight = restore_weight(packed.data_OE, packed.scale, packed.block)
    return _product(restore(x), weight, None if bias_O is None else bias_O.float()).to(x.dtype)


linear_fp8.kernel("tiled", when=_when, rank=_RANK)(_fp8)
linear_fp8_block.kernel("tiled", when=_when, rank=_RANK)(_fp8)


@activate_mul_quantize.kernel("tiled", when=_when, rank=_RANK)
def activate_mul_quantize_tiled(x_TJ: torch.Tensor, act: str, intake: Intake) -> Quantized:
    """As the reference."""
    y: Quantized = quantize(activate_mul_tiled(x_TJ, act), intake)
    return y


def _each(run: Callable[..., torch.Tensor], x: torch.Tensor, *args: object) -> torch.Tensor:
    """`run` row by row. why not on a GPU: what it does to a number there does not depend on the number's place."""
    return run(x, *args) if x.is_cuda else torch.cat([run(row, *args) for row in x.split(1)])


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    num = x.shape[0]
    out = torch.empty(num, weight.shape[0], dtype=x.dtype, device=x.device)
    tile = torch.zeros(ROWS, x.shape[1], dtype=x.dtype, device=x.device)
    for first in range(0, num, ROWS):
        count = min(ROWS, num - first)
        tile[:count] = x[first : first + count]
        out[first : first + count] = F.linear(tile, weight, bias)[:count]
    return out


@activate.kernel("tiled", when=_when, rank=_RANK)
def activate_tiled(x_TI: torch.Tensor, act: str) -> torch.Tensor:
    """As the reference."""
    return _each(activate, x_TI, act)


@activate_mul.kernel("tiled", when=_when, rank=_RANK)
def activate_mul_tiled(x_TJ: torch.Tensor, act: str) -> torch.Tensor:
    """As the reference."""
    return _each(activate_mul, x_TJ, act)


@softcap.kernel("tiled", when=_when, rank=_RANK)
def softcap_tiled(x_NV: torch.Tensor, cap: float) -> torch.Tensor:
    """As the reference."""
    return _each(softcap, x_NV, cap)


@choose.kernel("tiled", when=_when, rank=_RANK)
def choose_tiled(
    x_TE: torch.Tensor, packed: object, top_k: int, renormalize: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference."""
    assert isinstance(packed, torch.Tensor)
    return route(_product(x_TE.float(), packed), top_k, renormalize)


@experts.kernel("tiled", when=_when, rank=_RANK)
def experts_tiled(
    x_TE: torch.Tensor,
    weights_TA: torch.Tensor,
    experts_TA: torch.Tensor,
    up_XJE: torch.Tensor,
    down_XEI: torch.Tensor,
    act: str,
) -> torch.Tensor:
    """As the reference; a token's experts are added in the order of their numbers."""
    out = torch.zeros(x_TE.shape, dtype=torch.float32, device=x_TE.device)
    gated = up_XJE.shape[1] == 2 * down_XEI.shape[2]
    for expert in experts_TA.unique().tolist():
        tokens, place = (experts_TA == expert).nonzero(as_tuple=True)
        up = _product(x_TE[tokens], up_XJE[expert])
        y = _product(activate_mul_tiled(up, act) if gated else activate_tiled(up, act), down_XEI[expert])
        out[tokens] += y.float() * weights_TA[tokens, place, None]
    return out.to(x_TE.dtype)


@attention.kernel("tiled", when=_when, rank=_RANK)
def attention_tiled(
    q_THD: torch.Tensor,
    k_TKD: torch.Tensor,
    v_TKN: torch.Tensor,
    cache: Cache,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """As the reference."""
    write_kv(k_TKD, v_TKN, cache, group, shape)
    out = torch.empty(q_THD.shape[0], shape.heads, shape.v_dim, dtype=q_THD.dtype, device=q_THD.device)
    start = 0
    for s, query_len in enumerate(batch.query_lens):
        end = batch.host_seq_lens[s]
        position = end - query_len
        while position < end:
            base = position // ROWS * ROWS
            low, high = position - base, min(ROWS, end - base)
            q = q_THD.new_zeros((ROWS, shape.heads, shape.dim), dtype=torch.float32)
            q[low:high] = q_THD[start : start + high - low]
            y = _attend(q, base, cache, group.block_table[s], group.block_size, shape, sinks_H, base + high)
            out[start : start + high - low] = y[low:high]
            position, start = base + high, start + high - low
    return out


def _attend(
    q: torch.Tensor,
    base: int,
    cache: Cache,
    table_B: torch.Tensor,
    block_size: int,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None,
    end: int,
) -> torch.Tensor:
    """Positions base .. base + 15 of one sequence against its keys below `end`, 256 at a time. [16, H, N] float32."""
    kv, group = shape.kv_heads, shape.heads // shape.kv_heads
    q = q.view(ROWS, kv, group, shape.dim).transpose(0, 1).reshape(kv, ROWS * group, shape.dim)
    query = torch.arange(base, base + ROWS, device=q.device).repeat_interleave(group)[None, :, None]
    top = q.new_full((kv, ROWS * group, 1), float("-inf"))
    total, acc = torch.zeros_like(top), q.new_zeros((kv, ROWS * group, shape.v_dim))
    if sinks_H is not None:
        top = sinks_H.float().view(kv, 1, group).expand(kv, ROWS, group).reshape(kv, ROWS * group, 1)
        total = total + 1.0
    # why: whole key tiles below the window are skipped; where the first one starts depends on the position alone
    lowest = 0 if shape.window is None else max(0, base - shape.window + 1) // KEYS * KEYS
    for first in range(lowest, end, KEYS):
        k, v = _keys(cache, table_B, block_size, first, end, shape)
        scores = torch.bmm(q, k) * shape.scale
        if shape.softcap is not None:
            scores = shape.softcap * torch.tanh(scores / shape.softcap)
        key = torch.arange(first, first + KEYS, device=q.device)[None, None, :]
        hidden = key > query
        if shape.window is not None:
            hidden = hidden | (key <= query - shape.window)
        scores = scores.masked_fill(hidden, float("-inf"))
        new = torch.maximum(top, scores.amax(-1, keepdim=True))
        held = new.masked_fill(new == float("-inf"), 0.0)
        keep, p = (top - held).exp(), (scores - held).exp()
        total, acc, top = total * keep + p.sum(-1, keepdim=True), acc * keep + torch.bmm(p, v), new
    out = acc / total
    return out.view(kv, ROWS, group, shape.v_dim).transpose(0, 1).reshape(ROWS, shape.heads, shape.v_dim)


def _keys(
    cache: Cache, table_B: torch.Tensor, block_size: int, first: int, end: int, shape: AttentionShape
) -> tuple[torch.Tensor, torch.Tensor]:
    """K^T [K, D, 256] and V [K, 256, N] in float32 of positions first .. first + 255; zero from `end` on."""
    k = cache.k.new_zeros((shape.kv_heads, shape.dim, KEYS), dtype=torch.float32)
    v = cache.v.new_zeros((shape.kv_heads, KEYS, shape.v_dim), dtype=torch.float32)
    position = torch.arange(first, min(end, first + KEYS), device=k.device)
    block, offset = table_B[position // block_size].long(), position % block_size
    keys, values = raw(cache.k)[block, :, :, offset], raw(cache.v)[block, :, offset]
    k[:, :, : len(position)] = keys.view(cache.k.dtype).permute(1, 2, 0).float() * shape.k_scale
    v[:, : len(position)] = values.view(cache.v.dtype).transpose(0, 1).float() * shape.v_scale
    return k, v
