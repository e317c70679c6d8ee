"""Draw tokens by the Gumbel-max trick with noise that is a function of (seed, position, token) and nothing else.

    token = argmax over candidates of logit + g,   g = -log(-log1p(-u)),   u = hash(seed, position, token) in (0, 1)

The hash is 32-bit integer arithmetic that wraps, so it is the same on every device. Small u decides who wins, so u
keeps 32 bits near zero; near one it is held below 1 - 2^-24, where float32 would round to one and g to infinity.

N lines, V vocabulary, C candidates. Called by: sampling.
"""

import torch

from vllm.ops.table import Tol, op

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed word
_MIX_A, _MIX_B = -4658895280553007687, -7723592293110705685  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_STEP, _LOW_A, _LOW_B = -1640531535, 569420461, 1935289751  # 0x9E3779B1, 0x21F0AAAD, 0x735A2D97
LARGEST_U = 1.0 - 2.0**-24
NOISE_SPAN = 26.0
"""No two values of the noise differ by more: a candidate this far below the best logit cannot win."""

CASES = ((1, 1000), (3, 128256), (16, 4099))
"""(N, V)"""


def _shift64(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _shift32(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def noise_keys(seeds_N: torch.Tensor, positions_N: torch.Tensor) -> torch.Tensor:
    """[N, 2] int32: the key of a line's noise, from its seed (int64) and the absolute position (int64) to be filled."""
    x = seeds_N + _GOLDEN * (positions_N + 1)
    x = (x ^ _shift64(x, 30)) * _MIX_A
    x = (x ^ _shift64(x, 27)) * _MIX_B
    x = x ^ _shift64(x, 31)
    return torch.stack((x.to(torch.int32), _shift64(x, 32).to(torch.int32)), -1)


def uniform(keys_N2: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """float32 in (0, 1) for token ids [C] (shared) or [N, C]."""
    first, second = keys_N2[:, :1], keys_N2[:, 1:]
    x = ids.to(torch.int32) * _STEP + first
    for key in (second, None):
        x.bitwise_xor_(_shift32(x, 16)).mul_(_LOW_A)
        x.bitwise_xor_(_shift32(x, 15)).mul_(_LOW_B)
        x.bitwise_xor_(_shift32(x, 15))
        if key is not None:
            x.add_(key)
    word = x.to(torch.int64).bitwise_and_(0xFFFFFFFF)
    return word.mul_(2).add_(1).to(torch.float32).mul_(2.0**-33).clamp_(max=LARGEST_U)


def gumbel(keys_N2: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, float32, of the shape `uniform` gives."""
    return uniform(keys_N2, ids).neg_().log1p_().neg_().log_().neg_()


@op(tol=Tol(f32=0.0), cases=CASES)
def draw(logits_NV: torch.Tensor, keys_N2: torch.Tensor, ids_NV: torch.Tensor | None = None) -> torch.Tensor:
    """[N] int64 tokens: argmax of float32 logits (already over temperature; -inf is forbidden) plus noise.

    With `ids_NV` the columns are candidates with these token ids; otherwise column j is token j.
    """
    if ids_NV is not None:
        best = (logits_NV + gumbel(keys_N2, ids_NV)).argmax(-1, keepdim=True)
        return ids_NV.gather(-1, best).squeeze(-1)
    out = torch.empty(logits_NV.shape[0], dtype=torch.int64, device=logits_NV.device)
    for n, line in enumerate(logits_NV):  # why: line by line the noise stays in the processor's cache
        ids = (line > line.max() - NOISE_SPAN).nonzero()[:, 0]
        if not ids.numel():  # why: nothing but NaN or -inf; any token is as wrong as another, and token 0 is a token
            out[n] = 0
            continue
        out[n] = ids[(line[ids] + gumbel(keys_N2[n : n + 1], ids)[0]).argmax()]
    return out
