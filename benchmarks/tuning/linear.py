"""`python -m benchmarks.tuning.linear [OUT.json] [e4m3] [SHAPE | ROWS ...]`: time `few` over tiles, keep the best.

`e4m3`: weights in 8 bits, beside the kernel that serves where nothing is folded.

Every candidate is compiled and compared with the library by a pool of processes, then timed alone: a graph of calls
over copies of the weight that together exceed the second-level cache, microseconds a call. Writes
`vllm/ops/triton/tiles_sm90.py`. Takes one GPU and a minute or two.
"""

import json
import multiprocessing
import sys
from dataclasses import astuple
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.tuning.timing import in_graph
from vllm.ops.fold import Folded
from vllm.ops.linear_fp8 import Fp8Weight, linear_fp8, quantize_weight
from vllm.ops.quantize import Intake, Quantized, quantize, restore
from vllm.ops.triton import linear as room
from vllm.ops.triton.linear_fp8 import linear_fp8_triton
from vllm.ops.triton.small import empty_small, in_columns
from vllm.ops.triton.tiles import Tile
from vllm.ops.triton.tiles_sm90 import TILES, TILES_E4M3

SHAPES = {
    "8b.qkv": (6144, 4096, "in"), "8b.o": (4096, 4096, "add"), "8b.up": (28672, 4096, "act"),
    "8b.down": (4096, 14336, "add"),
    "0.6b.qkv": (4096, 1024, "in"), "0.6b.o": (1024, 2048, "add"), "0.6b.up": (6144, 1024, "act"),
    "0.6b.down": (1024, 3072, "add"),
    "30b.qkv": (5120, 2048, "in"), "30b.o": (2048, 4096, "add"),
}  # fmt: skip
ROWS = (1, 2, 8, 32, 64, 128)
_LARGER_THAN_CACHE = 200 << 20
TABLE = Path(room.__file__).with_name("tiles_sm90.py")


def candidates(outputs: int, inputs: int, kind: str, rows: int, small: bool) -> list[Tile]:
    """Tiles worth trying."""
    found, wide = [], outputs // 2 if kind == "act" else outputs
    if rows <= 2 and not small:
        for bn in (2, 4, 8, 16):
            for warps in (4, 8):
                each = bn * inputs * (2 if kind == "act" else 1) // (32 * warps)
                if 32 <= each <= 256:
                    found.append(Tile(bn, inputs, 1, 1, warps, "lone"))
        return found
    if small and rows > 64:
        # why: one program fits on a processor, and those of a tile wait for each other
        for bn, stages in ((64, 7), (128, 5)):
            splits = (1,) if kind == "act" else (1, 2, 4)
            found += [Tile(bn, 128, s, stages, 4, "wide") for s in splits if 90 <= wide // bn * s <= 132]
        return found
    sides = [(64, 128, "hopper"), (64, 64, "hopper"), (128, 64, "hopper"), (128, 128, "hopper")]
    if small:
        sides = [(64, 128, "hopper"), (128, 128, "hopper"), (64, 256, "hopper")][: 3 if rows <= 32 else 2]
    elif wide * inputs <= 1 << 23 and rows <= 32:
        sides += [(32, 128, "plain"), (64, 256, "hopper"), (16, 256, "plain")]
    for bn, bk, way in sides:
        tiles, fits = wide // bn, []
        for splits in (1, 2, 3, 4, 6, 7, 8, 12):
            if inputs % (bk * splits) == 0 and 48 <= tiles * splits <= 700:
                fits.append(splits)
        fits = sorted(fits, key=lambda s: abs(tiles * s - 190))[:2]
        for splits in fits:
            each = (bn * (2 if kind == "act" else 1) + max(8, rows)) * (1 if small else 2) * bk
            for budget in (104 << 10, (208 if not small or bn == 128 else 68) << 10):
                stages = min(budget // each, inputs // splits // bk + (way == "plain"), 12 if way == "hopper" else 8)
                if stages >= 2:
                    found += [Tile(bn, bk, splits, stages, w, way) for w in _warps(bn, kind, rows, small)]
    return list(dict.fromkeys(found))


def _warps(bn: int, kind: str, rows: int, small: bool) -> tuple[int, ...]:
    """Warps that can hold a tile's sums: those of e4m3 twice."""
    if not small:
        return (8,) if bn == 128 and rows >= 128 else (4,)
    held = bn * max(8, rows) * (2 if kind == "act" else 1) * 2 // 128
    return tuple(w for w in (4, 8) if held * 4 // w <= 192 and (w == 4 or rows * bn >= 4096))


class Call:
    """One shape with as many rows."""

    def __init__(self, outputs: int, inputs: int, kind: str, rows: int, copies: int, small: bool) -> None:
        self.kind, self.wide, self.small = kind, outputs // 2 if kind == "act" else outputs, small
        self.weights = [torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
        if small:
            self.weights = [Fp8Weight(*quantize_weight(w), Intake()) for w in self.weights]
        self.x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
        self.shrunk = quantize(self.x, Intake())
        group = 64 if kind == "add" and inputs > outputs else 128  # why: as the map before it gives them
        self.tokens = in_columns(quantize(self.x, Intake(group=group))) if small else self.x
        shares = inputs // (64 if rows > 2 else 8)
        self.sums = torch.full((shares, rows), inputs / shares, device="cuda")
        self.hidden = torch.zeros(rows, outputs, device="cuda", dtype=torch.bfloat16)
        self.norm = torch.ones(outputs, device="cuda")

    def ours(self, i: int, tile: Tile) -> torch.Tensor | Quantized:
        weight, rates = room._parts(self.weights[i])
        if self.kind == "add":
            rows = self.x.shape[0]
            sums = torch.empty(-(-self.wide // tile.bn), rows, device="cuda")
            scaled = torch.empty_like(self.hidden)
            if self.small:
                scaled = empty_small(rows, self.wide, tile.bn, self.x.dtype, self.x.device)
            return room.few(
                self.tokens, weight, tile, rates=rates, out=self.hidden, following=(self.norm, scaled, sums)
            )
        return room.few(
            self.tokens, weight, tile, rates=rates, folded=Folded(self.x, self.tokens, self.sums), eps=1e-6,
            act=self.kind == "act",
        )  # fmt: skip

    def library(self, i: int) -> torch.Tensor:
        packed = self.weights[i]
        return linear_fp8_triton(self.shrunk, packed) if self.small else F.linear(self.x, packed)

    def want(self, packed: torch.Tensor | Fp8Weight) -> torch.Tensor:
        y = linear_fp8(self.shrunk, packed).float() if self.small else F.linear(self.x.float(), packed.float())
        if self.kind != "act":
            return y
        gate, up = y.bfloat16().float().chunk(2, -1)
        return F.silu(gate) * up


def check(job: tuple[int, int, str, int, Tile, bool]) -> float:
    """Compile one candidate; its error relative to the largest value. NaN: it cannot run."""
    outputs, inputs, kind, rows, tile, small = job
    torch.manual_seed(0)
    call = Call(outputs, inputs, kind, rows, 1, small)
    try:
        got = call.ours(0, tile)
        got = restore(got) if isinstance(got, Quantized) else got.float()
        want = call.want(call.weights[0])
        return float((got - want).abs().max() / want.abs().max())
    except Exception as error:
        print(f"{job}: {type(error).__name__}: {str(error)[:100]}", flush=True)
        return float("nan")


def main(names: list[str]) -> None:
    """Tune the shapes of `names`, or all."""
    out = names.pop(0) if names and names[0].endswith(".json") else ""
    small = "e4m3" in names
    names = [n for n in names if n != "e4m3"]
    wanted = [int(n) for n in names if n.isdigit()] or ROWS
    names = [n for n in names if not n.isdigit()] or list(SHAPES)
    jobs = [
        (*SHAPES[name], rows, tile, small)
        for name in names
        for rows in wanted
        for tile in candidates(*SHAPES[name], rows, small)
    ]
    with multiprocessing.get_context("spawn").Pool(14) as pool:
        errors = dict(zip(jobs, pool.map(check, jobs, chunksize=2), strict=True))
    report, both = [], [dict(TILES), dict(TILES_E4M3)]
    table, size = both[small], 1 if small else 2
    for name in names:
        outputs, inputs, kind = SHAPES[name]
        for rows in wanted:
            copies = max(2, -(-_LARGER_THAN_CACHE // (outputs * inputs * size)))
            call = Call(outputs, inputs, kind, rows, copies, small)
            library = in_graph(call.library, copies)
            times = []
            for tile in candidates(outputs, inputs, kind, rows, small):
                error = errors[outputs, inputs, kind, rows, tile, small]
                if not error < (0.06 if small else 0.02):  # why: inputs are shrunk in other groups
                    print(f"{name} {rows} {tile}: error {error}")
                    continue
                times.append((in_graph(partial(call.ours, tile=tile), copies), tile))
            times.sort(key=lambda one: one[0])
            best, tile = times[0]
            floor = outputs * inputs * size / 4.375e6
            key = outputs, inputs, kind == "act"
            if rows > 2 or best < table.get((*key, 8), (best + 1.0, 0))[-2]:
                table[*key, rows] = (*astuple(tile), round(best, 1), round(library, 1))
            print(f"{name} {rows}: {tile} {best:.1f} us, library {library:.1f}, floor {floor:.1f}", flush=True)
            report.append([name, rows, library, floor, [(t, *astuple(c)) for t, c in times]])
    text = TABLE.read_text()
    text = text[: text.index("TILES: Times")]
    for name, one in zip(("TILES", "TILES_E4M3"), both, strict=True):
        lines = "".join(f"    {key}: {value},\n" for key, value in sorted(one.items())).replace("'", '"')
        text += f"{name}: Times = {{\n{lines}}}\n"
    TABLE.write_text(text)
    if out:
        Path(out).write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
