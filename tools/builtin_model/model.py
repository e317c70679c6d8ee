"""The trainer's own small Llama in plain torch, with the parameter names of the exported checkpoint.

It shares no code with the engine, so that the engine's and transformers' logits can be checked against it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes; the defaults are the built-in model's (7,474,432 parameters)."""

    vocab_size: int = 6144
    hidden: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    inner: int = 704
    positions: int = 4096
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


def rope_tables(shape: Shape, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [positions, head_dim], float32; both halves of a head turn by the same angles."""
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=device) / shape.head_dim
    angles = torch.arange(shape.positions, dtype=torch.float32, device=device)[:, None] * shape.rope_theta**-half
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., head_dim]; cos and sin broadcast against it."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class Norm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight.float()).to(x.dtype)


class Attention(nn.Module):
    """Causal attention with grouped keys; with a cache, `mask` says what each query may see."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: "Past | None", mask: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        s = self.shape
        # One product for all three: in training it reads and writes the stream once instead of three times.
        joint = F.linear(x, torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)))
        joint = joint.view(batch, length, s.heads + 2 * s.kv_heads, s.head_dim).transpose(1, 2)
        q, k, v = joint.split((s.heads, s.kv_heads, s.kv_heads), dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = past.extend(k, v)
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Past:
    """One layer's keys and values, [batch, kv_heads, capacity, head_dim], filled from the left."""

    def __init__(self, batch: int, capacity: int, s: Shape, like: Tensor) -> None:
        self.keys = torch.zeros(batch, s.kv_heads, capacity, s.head_dim, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values of new positions and gives back all so far."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class Feed(nn.Module):
    """The gated feed-forward part."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.inner, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.inner, bias=False)
        self.down_proj = nn.Linear(s.inner, s.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight))).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    """Norm, attention, norm, feed-forward, each added to the stream."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(s.hidden, s.norm_eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = Norm(s.hidden, s.norm_eps)
        self.mlp = Feed(s)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, past, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The whole model; the output matrix is the embedding."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = s = shape or Shape()
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s.norm_eps)
        self._start()

    def _start(self) -> None:
        """Small normal weights; those that write to the stream smaller by depth."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * self.shape.layers) ** 0.5 if small else 0.02)

    def hidden_states(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """tokens [batch, length] -> [batch, length, hidden], for training; cos and sin [length, head_dim]."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, None, None)
        return self.norm(x)

    def forward(
        self, tokens: Tensor, positions: Tensor, tables: tuple[Tensor, Tensor], past: list[Past], mask: Tensor
    ) -> Tensor:
        """One step of generation: logits of the last position, [batch, vocab]."""
        cos, sin = (t[positions].unsqueeze(1) for t in tables)
        x = self.embed_tokens(tokens)
        for layer, one in zip(self.layers, past, strict=True):
            x = layer(x, cos, sin, one, mask)
        return self.norm(x[:, -1]) @ self.embed_tokens.weight.T
