"""`python -m benchmarks.tuning.layers [8] [32] [64]`: choose tiles of e4m3 maps of 8B by the time of whole layers.

Timed alone a map does not show what it leaves of shared memory to the kernel behind it, nor what columns that share a
scale cost the map that reads its result. So layers with attention over 1,150 keys run in a graph, and one map after the
other takes the best of some tiles, twice over. Prints microseconds a layer, beside the way without folding; the winners
are copied into `vllm/ops/triton/tiles_sm90.py` by hand. Takes one GPU and half a minute.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple

import torch

from benchmarks.tuning import decode as attention
from benchmarks.tuning.linear import SHAPES, candidates
from benchmarks.tuning.timing import in_graph
from vllm.ops.fold import Folded
from vllm.ops.linear_fp8 import Fp8Weight
from vllm.ops.quantize import Intake
from vllm.ops.triton import decode, linear, linear_fp8, quantize
from vllm.ops.triton.small import in_columns
from vllm.ops.triton.tiles import Tile, tile_of

LAYERS, EPS = 6, 1e-5
MAPS = {name: (*SHAPES[f"8b.{name}"][:2], name == "up") for name in ("up", "down", "o", "qkv")}
"""Outputs, inputs, gated; in the order in which they are tuned."""
Tiles = dict[str, Tile]


def _weight(outputs: int, inputs: int) -> Fp8Weight:
    values = (torch.randn(outputs, inputs, device="cuda") * 64).clamp(-400, 400).to(torch.float8_e4m3fn)
    return Fp8Weight(values, torch.full((outputs,), 2e-4, device="cuda"), Intake())


def _use(tiles: Tiles) -> None:
    """Let the kernels' table be `tiles`."""
    names = {shape: name for name, shape in MAPS.items()}
    linear.tile_of = lambda o, i, rows, must=False, act=False, small=False: tiles[names[o, i, act]]


class Layers:
    """Some layers, and as many tokens."""

    def __init__(self, rows: int) -> None:
        self.call, self.rows = attention.Call("8b", [1150] * rows), rows
        self.weights = [{name: _weight(*shape[:2]) for name, shape in MAPS.items()} for _ in range(LAYERS)]
        self.norm = torch.ones(4096, device="cuda")
        self.hidden = torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16)

    def _attend(self, qkv: torch.Tensor, i: int, small: bool) -> object:
        c = self.call
        cache, group = c.caches[i % len(c.caches)], c.batch.groups[0]
        return decode.heads_attention_triton(qkv, *c.inputs[1:], cache, c.batch, group, c.shape, small=small)

    def folded(self, tiles: Tiles) -> None:
        """As a model runs them for few tokens."""
        _use(tiles)
        f = linear.fold_triton(self.hidden, self.norm, True)
        for i, w in enumerate(self.weights):
            y = self._attend(linear.folded_linear_triton(f, EPS, w["qkv"]), i, True)
            f = linear.linear_fold_triton(y, w["o"], f.hidden, self.norm)
            y = linear.folded_linear_mul_triton(f, EPS, w["up"])
            f = linear.linear_fold_triton(y, w["down"], f.hidden, self.norm)

    def plain(self) -> None:
        """As it runs them for more tokens."""
        x, delta, one = self.hidden, torch.zeros_like(self.hidden), Intake()
        for i, w in enumerate(self.weights):
            x, h = quantize.add_rms_norm_quantize_triton(delta, x, self.norm, EPS, one)
            y = self._attend(linear_fp8.linear_fp8_triton(h, w["qkv"]), i, False)
            delta = linear_fp8.linear_fp8_triton(y.view(self.rows, -1), w["o"])
            x, h = quantize.add_rms_norm_quantize_triton(delta, x, self.norm, EPS, one)
            y = quantize.activate_mul_quantize_triton(linear_fp8.linear_fp8_triton(h, w["up"]), "silu", one)
            delta = linear_fp8.linear_fp8_triton(y, w["down"])


def _time(run: Callable[[], None]) -> float:
    return in_graph(lambda i: run(), 1, 1) / LAYERS


def _compile(job: tuple[int, str, Tile]) -> None:
    """In a process of its own, into the kernel cache, for all columns that may share a scale of its input."""
    rows, name, tile = job
    outputs, inputs, gated = MAPS[name]
    weight, norm = _weight(outputs, inputs), torch.ones(outputs, device="cuda")
    h = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
    _use(dict.fromkeys(MAPS, tile))
    for shares, group in ((32, 128), (64, 64), (1, 128)):
        x = in_columns(quantize.quantize_triton(h, Intake(group=group)))
        if name in ("o", "down"):
            linear.linear_fold_triton(x, weight, h.new_zeros(rows, outputs), norm)
            continue
        f = Folded(h, x, torch.ones(shares, rows, device="cuda"))
        (linear.folded_linear_mul_triton if gated else linear.folded_linear_triton)(f, EPS, weight)
    torch.cuda.synchronize()


def _tried(name: str, rows: int) -> Iterator[Tile]:
    outputs, inputs, gated = MAPS[name]
    yield from candidates(outputs, inputs, SHAPES[f"8b.{name}"][2], rows, True)
    tile = tile_of(outputs, inputs, rows, must=True, act=gated, small=True)
    assert tile is not None
    yield tile


def main(rowses: list[int]) -> None:
    """Tune for so many tokens."""
    jobs = [(rows, name, tile) for rows in rowses for name in MAPS for tile in _tried(name, rows)]
    with multiprocessing.get_context("spawn").Pool(14) as pool:
        pool.map(_compile, jobs, chunksize=2)
    for rows in rowses:
        layers = Layers(rows)
        tiles = {name: list(_tried(name, rows))[-1] for name in MAPS}
        best = _time(lambda layers=layers, tiles=tiles: layers.folded(tiles))
        print(f"{rows}: {best:.1f} us a layer with the table, {_time(layers.plain):.1f} without folding", flush=True)
        for name in (*MAPS, *MAPS):
            for tile in _tried(name, rows):
                mine = {**tiles, name: tile}
                us = _time(lambda layers=layers, mine=mine: layers.folded(mine))
                if us < best - 0.1:
                    best, tiles = us, mine
        print(f"{rows}: {best:.1f} us with", {name: astuple(tile)[:5] for name, tile in tiles.items()}, flush=True)
        del layers


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or [8, 32, 64])
