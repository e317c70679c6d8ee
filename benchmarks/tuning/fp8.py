"""`python -m benchmarks.tuning.fp8 [OUT.json]`: time the fp8 kernels over tiles and rows; print lines for the tables.

Every candidate is compiled and compared with the reference by a pool of processes, then timed alone: a graph of calls
over copies of the weight that together exceed the second-level cache, microseconds a call. `few` prints lines for
`vllm/ops/triton/linear_fp8_tiles.py`. Takes one GPU and about two minutes.
"""

# ruff: noqa: B023  (what a loop binds is run before it goes on)
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.tuning.timing import in_graph
from vllm.ops import linear_fp8 as lf
from vllm.ops.quantize import FP8, Intake, Quantized, quantize
from vllm.ops.triton import linear_fp8 as room
from vllm.ops.triton import quantize as small
from vllm.ops.triton.linear_fp8_tiles import Tile

SHAPES = {
    "8b.qkv": (6144, 4096),
    "8b.o": (4096, 4096),
    "8b.up": (28672, 4096),
    "8b.down": (4096, 14336),
    "0.6b.qkv": (4096, 1024),
    "0.6b.down": (1024, 3072),
}
ROWS = (1, 16, 32, 64, 128, 256)
BLOCK = 128
LARGE = (256, 2048, 16384)
_LARGER_THAN_CACHE = 200 << 20
_SHARED = 200 << 10


def candidates(outputs: int, inputs: int, rows: int, block: int) -> list[Tile]:
    """Tiles worth trying."""
    found = []
    bm = min(128, max(16, rows))
    for bn, bk, warps in ((64, 256, 4), (64, 128, 4), (128, 128, 4), (128, 128, 8), (128, 256, 8)):
        if block and bk != block:
            continue
        fits = [
            s
            for s in (1, 2, 3, 4, 6, 7, 8, 12, 16)
            if inputs % (bk * s) == 0 and 60 <= outputs // bn * s * max(1, rows // bm) <= 1100
        ]
        for splits in sorted(fits, key=lambda s: abs(outputs // bn * s - 200))[:2]:
            deepest = min(_SHARED // ((bn + bm) * bk), inputs // splits // bk + 1, 8)
            for stages in sorted({min(deepest, 5), deepest}):
                if stages >= 2:
                    found.append(Tile(bm, bn, bk, splits, warps, stages, 8))
    return found


def weight_of(outputs: int, inputs: int, block: int) -> lf.Fp8Weight:
    """A random weight; only its bytes matter here."""
    data = (torch.randn(outputs, inputs, device="cuda") * 50).to(FP8)
    if block:
        scale = torch.rand(-(-outputs // block), -(-inputs // block), device="cuda") * 0.01 + 0.001
        return lf._pack_block(data, scale, (block, block))
    return lf._pack(data, torch.rand(outputs, device="cuda") * 0.01 + 0.001)


def tokens_of(rows: int, inputs: int, block: int) -> Quantized:
    """Random tokens."""
    return quantize(torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16), Intake(group=block))


def check(job: tuple[int, int, int, int, Tile]) -> float:
    """Compile one candidate; its error relative to the largest value. NaN: it cannot run."""
    outputs, inputs, rows, block, tile = job
    torch.manual_seed(0)
    try:
        # why: sizes are no constants of the kernel, so a few tiles compile what all of them run
        outputs = min(outputs, 4 * tile.bn)
        weight, x = weight_of(outputs, inputs, block), tokens_of(rows, inputs, block)
        want = (lf.linear_fp8_block if block else lf.linear_fp8)(x, weight).float()
        return float((room.few(x, weight, None, tile).float() - want).abs().max() / want.abs().max())
    except Exception as error:
        print(f"{job}: {type(error).__name__}: {str(error)[:100]}", flush=True)
        return float("nan")


def plain(x: Quantized, weight: lf.Fp8Weight, fast: bool, rowwise: bool) -> torch.Tensor:
    """The library, with a scale per row or with one for all."""
    one = torch.ones((), device="cuda")
    scales = (x.scale[:, None], weight.scale[None, :]) if rowwise else (one, one)
    return torch._scaled_mm(x.values, weight.data_OE.t(), *scales, out_dtype=x.dtype, use_fast_accum=fast)


def few_rows(names: list[str], block: int, rows_of: tuple[int, ...]) -> list[object]:
    """Tune `few`."""
    jobs = [
        (*SHAPES[n], rows, block, t) for n in names for rows in rows_of for t in candidates(*SHAPES[n], rows, block)
    ]
    # why: neighbours in the list often share a kernel; spread, they compile at once
    first = {(j[4], j[1] % (j[4].bk * j[4].splits)): j for j in jobs}
    with multiprocessing.get_context("spawn").Pool(14) as pool:
        errors = dict(zip(first, pool.map(check, first.values(), chunksize=1), strict=True))
    report = []
    for name in names:
        outputs, inputs = SHAPES[name]
        copies = max(2, -(-_LARGER_THAN_CACHE // (outputs * inputs)))
        weights = [weight_of(outputs, inputs, block) for _ in range(copies)]
        for rows in rows_of:
            x, times = tokens_of(rows, inputs, block), []
            for tile in candidates(outputs, inputs, rows, block):
                if not errors[tile, inputs % (tile.bk * tile.splits)] < 0.02:
                    print(f"{name} {rows} {tile}: error {errors[tile, inputs % (tile.bk * tile.splits)]}")
                    continue
                times.append((in_graph(lambda i, x=x, t=tile: room.few(x, weights[i], None, t), copies), tile))
            times.sort(key=lambda one: one[0])
            dry = in_graph(lambda i, x=x: room.few(x, weights[i], None, Tile(*_values(times[0][1])[:-1], 0)), copies)
            library = float("nan")
            if not block:
                library = in_graph(lambda i, x=x: plain(x, weights[i], True, True), copies)
            best, tile = times[0]
            print(
                f"({outputs}, {inputs}): Tile{_values(tile)},  # {name} {rows}: {best:.1f} us, "
                f"{outputs * inputs / best / 1e6:.2f} TB/s, without asking ahead {dry:.1f}, library {library:.1f}",
                flush=True,
            )
            report.append([name, rows, block, library, dry, [(t, *_values(c)) for t, c in times]])
    return report


def _values(tile: Tile) -> tuple[int, ...]:
    return tile.bm, tile.bn, tile.bk, tile.splits, tile.warps, tile.stages, tile.ahead


def compile_many(job: tuple[int, int, int, int, int]) -> float:
    """Compile `many`; its error."""
    block, *tile = job
    x, weight = tokens_of(300, 512, block), weight_of(512, 512, block)
    try:
        want = (lf.linear_fp8_block if block else lf.linear_fp8)(x, weight).float()
        return float((room.many(x, weight, None, *tile).float() - want).abs().max() / want.abs().max())
    except Exception as error:
        print(f"many {job}: {type(error).__name__}: {str(error)[:100]}", flush=True)
        return float("nan")


def many_rows() -> list[object]:
    """The library in its ways, and `many`, for large steps."""
    tiles = [(128, 128, 8, 3), (128, 128, 4, 4), (128, 256, 8, 3), (64, 128, 4, 4)]
    jobs = [(block, *tile) for block in (0, BLOCK) for tile in tiles]
    with multiprocessing.get_context("spawn").Pool(12) as pool:
        errors = dict(zip(jobs, pool.map(compile_many, jobs, chunksize=1), strict=True))
    report = []
    for name in ("8b.up", "8b.down", "8b.qkv"):
        outputs, inputs = SHAPES[name]
        weights = [weight_of(outputs, inputs, 0) for _ in range(2)]
        blocked = [weight_of(outputs, inputs, BLOCK) for _ in range(2)]
        for rows in LARGE:
            x, xb = tokens_of(rows, inputs, 0), tokens_of(rows, inputs, BLOCK)
            scale = 2e-6 * rows * outputs * inputs

            def rate(run: Callable[[int], object], scale: float = scale) -> float:
                try:
                    return round(scale / in_graph(run, 2, 4))
                except Exception as error:
                    print(type(error).__name__, str(error)[:200], flush=True)
                    return float("nan")

            row = {
                "rowwise fast": rate(lambda i: plain(x, weights[i], True, True)),
                "rowwise": rate(lambda i: plain(x, weights[i], False, True)),
                "tensorwise fast": rate(lambda i: plain(x, weights[i], True, False)),
                "tensorwise": rate(lambda i: plain(x, weights[i], False, False)),
                "blocks, library": rate(lambda i: by_blocks(xb, blocked[i])),
            }
            for block, *tile in jobs:
                if errors[block, *tile] < 0.02 and (rows > 128 or tile[0] < 256):
                    pair = (xb, blocked) if block else (x, weights)
                    row[f"many {block} {tile}"] = rate(lambda i, p=pair, t=tile: room.many(p[0], p[1][i], None, *t))
            print(f"{name} {rows} TFLOP/s:", row, flush=True)
            report.append([name, rows, row])
    return report


def by_blocks(x: Quantized, weight: lf.Fp8Weight) -> torch.Tensor:
    """The library with scales per block; it wants blocks of columns by fours. Not compared with the reference."""
    from torch.nn.functional import ScalingType, scaled_mm

    scale_a = x.scale.t().contiguous().t()
    scale_b = weight.scale.t()
    return scaled_mm(
        x.values, weight.data_OE.t(), scale_a, ScalingType.BlockWise1x128, scale_b, ScalingType.BlockWise128x128,
        output_dtype=x.dtype,
    )  # fmt: skip


def small_kernels() -> None:
    """What quantizing inputs costs beside the ops without it."""
    from vllm.ops.triton.activation import activate_mul_triton
    from vllm.ops.triton.norm import add_rms_norm_triton

    w, intake = torch.ones(4096, device="cuda"), Intake()
    for rows in (1, 32, 128, 16384):
        x, r = (torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        pair = torch.randn(rows, 28672, device="cuda", dtype=torch.bfloat16)
        times = {
            "norm": in_graph(lambda i: add_rms_norm_triton(x, r, w, 1e-5), 1),
            "norm + quantize": in_graph(lambda i: small.add_rms_norm_quantize_triton(x, r, w, 1e-5, intake), 1),
            "quantize": in_graph(lambda i: small.quantize_triton(x, intake), 1),
            "activate": in_graph(lambda i: activate_mul_triton(pair, "silu"), 1),
            "activate + quantize": in_graph(lambda i: small.activate_mul_quantize_triton(pair, "silu", intake), 1),
        }
        print(f"small kernels, {rows} rows, us:", {k: round(v, 2) for k, v in times.items()}, flush=True)


def main(arguments: list[str]) -> None:
    """All of it, or what the arguments name."""
    out = arguments.pop(0) if arguments and arguments[0].endswith(".json") else ""
    report: dict[str, object] = {}
    if not arguments or "small" in arguments:
        small_kernels()
    if not arguments or "few" in arguments:
        report["few"] = few_rows(list(SHAPES), 0, ROWS)
    if not arguments or "block" in arguments:
        report["block"] = few_rows(["8b.o", "8b.up", "8b.down"], BLOCK, (16, 128))
    if not arguments or "many" in arguments:
        report["many"] = many_rows()
    if out:
        Path(out).write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
