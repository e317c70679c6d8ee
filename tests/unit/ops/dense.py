"""The ops once more, in float64 and in the plainest way: what references are checked against."""

import math

import torch

torch.set_num_threads(1)


def attend(q, k, v, shape, sinks=None):
    """One sequence: q [n, H, D] are its last n tokens; k [L, K, D], v [L, K, N] are all of them. float64."""
    n, length, group = q.shape[0], k.shape[0], shape.heads // shape.kv_heads
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * shape.scale
    if shape.softcap:
        scores = shape.softcap * torch.tanh(scores / shape.softcap)
    far = torch.arange(length - n, length)[:, None] - torch.arange(length)[None, :]
    scores = scores.masked_fill((far < 0) | (far >= (shape.window or length + 1)), -math.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks[:, None, None].expand(-1, n, 1)), -1)
    weights = scores.softmax(-1)[..., :length]
    return torch.einsum("hqk,khd->qhd", weights, v)


def rms(x, weight, eps):
    """RMS norm of float64 rows."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x, angles, dim, interleaved):
    """Rotary embedding of x [T, H, D] by angles [T, dim / 2], one pair at a time."""
    out = x.clone()
    for i in range(dim // 2):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + dim // 2)
        c, s = angles[:, i].cos()[:, None], angles[:, i].sin()[:, None]
        out[..., a] = x[..., a] * c - x[..., b] * s
        out[..., b] = x[..., b] * c + x[..., a] * s
    return out


ACT = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: x.clamp(min=0),
    "relu2": lambda x: x.clamp(min=0) ** 2,
}


def assert_close(got, expected, tol):
    """Largest difference within `tol` of the largest expected value."""
    scale = max(1e-6, float(expected.abs().max()))
    error = float((got.double() - expected).abs().max())
    assert error <= tol * scale, f"off by {error / scale:.2e} of scale, allowed {tol:.0e}"
