"""Weights without a checkpoint: seeded noise for speed runs. Norms are one, all else is uniform in +-1e-3.

Does not know architectures. Invariants: a tensor depends on (seed, name) alone, so every rank cuts its share out of the
same whole; nothing is zero (zeros run faster than real weights and send every token to the same experts).
Called by: loader.
"""

import zlib

import torch

from vllm.parts.tensors import TensorSpec

# why: a prime period, so that rows of a matrix do not repeat each other
_PERIOD = 1_048_573


def fill(
    shards: dict[str, torch.Tensor], specs: dict[str, TensorSpec], seed: int, tp_size: int = 1, tp_rank: int = 0
) -> None:
    """Fill every shard in place."""
    tiles: dict[torch.dtype, torch.Tensor] = {}
    for name, shard in shards.items():
        spec = specs[name]
        if len(spec.shape) == 1 and name.endswith(".weight"):
            shard.fill_(1.0)
            continue
        if shard.dtype not in tiles:
            tiles[shard.dtype] = _tile(seed, shard)
        start = zlib.crc32(f"{seed}/{name}".encode()) % _PERIOD
        if tp_size == 1 or spec.shard_dim is None:
            _repeat(shard, tiles[shard.dtype], start)
        else:
            whole = torch.empty(spec.shape, dtype=shard.dtype, device=shard.device)
            _repeat(whole, tiles[shard.dtype], start)
            share = _cut(whole, spec, tp_size, tp_rank)
            shard.narrow(spec.shard_dim, 0, share.shape[spec.shard_dim]).copy_(share)


def _tile(seed: int, like: torch.Tensor) -> torch.Tensor:
    noise = torch.empty(_PERIOD).uniform_(-1e-3, 1e-3, generator=torch.Generator().manual_seed(seed))
    return noise.to(like.dtype).to(like.device)


def _repeat(dst: torch.Tensor, tile: torch.Tensor, start: int) -> None:
    flat, done = dst.view(-1), 0
    while done < flat.numel():
        n = min(_PERIOD - start, flat.numel() - done)
        flat[done : done + n].copy_(tile[start : start + n])
        done, start = done + n, 0


def _cut(whole: torch.Tensor, spec: TensorSpec, size: int, rank: int) -> torch.Tensor:
    assert spec.shard_dim is not None
    parts, at = [], 0
    for piece, (start, length) in zip(spec.pieces, spec.ranges(size, rank), strict=True):
        parts.append(whole.narrow(spec.shard_dim, at + start, length))
        at += piece.size
    return torch.cat(parts, spec.shard_dim)
