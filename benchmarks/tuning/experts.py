"""`python -m benchmarks.tuning.experts [OUT.json]`: time the expert kernels over tiles, print the best per load.

Shapes of Qwen3-30B-A3B (128 experts of 768, 8 per token, hidden 2048), random routing, weights beyond the second-level
cache, a graph of calls, microseconds a call. A pool of processes compiles and checks every candidate first. Prints the
lines of `vllm/ops/triton/moe_tiles.py`, then the parts of a layer for each number of tokens. One GPU, about a minute.
"""

import json
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.tuning.timing import in_graph
from vllm.ops.moe import experts, route
from vllm.ops.moe import moe as both
from vllm.ops.triton import moe, moe_choose, moe_few, moe_many
from vllm.ops.triton.moe_join import joined
from vllm.ops.triton.moe_sort import sort
from vllm.ops.triton.moe_tiles import Tile, Tiles, tiles

E, I, X, A = 2048, 768, 128, 8  # noqa: E741
LOADS = {1: (16,), 4: (16,), 8: (16,), 32: (16,), 128: (16, 32), 256: (16, 32), 512: (32, 64), 1024: (64, 128)}
"""tokens -> rows of a block"""
UP = {
    16: [
        *(Tile(32, 256, 4, 2), Tile(32, 256, 4, 3), Tile(16, 256, 4, 3), Tile(16, 512, 4, 2), Tile(32, 128, 4, 4)),
        *(Tile(64, 128, 4, 2), Tile(64, 128, 4, 3), Tile(64, 64, 4, 4), Tile(32, 128, 4, 6)),
        *(Tile(64, 64, 4, 4, True), Tile(64, 128, 4, 2, True), Tile(64, 128, 4, 3, True), Tile(128, 64, 4, 3, True)),
        *(Tile(128, 64, 8, 4, True), Tile(64, 64, 4, 6, True), Tile(64, 256, 4, 2, True)),
    ],
    32: [
        *(Tile(32, 128, 4, 4), Tile(64, 64, 4, 4), Tile(64, 128, 4, 3), Tile(64, 128, 4, 3, True)),
        *(Tile(64, 64, 4, 4, True), Tile(128, 64, 4, 3, True), Tile(128, 64, 8, 4, True)),
    ],
    64: [Tile(64, 64, 4, 3), Tile(64, 64, 4, 4), Tile(128, 64, 8, 3), Tile(128, 64, 8, 4), Tile(64, 128, 4, 2)],
    128: [Tile(64, 64, 4, 3), Tile(64, 64, 8, 4), Tile(128, 64, 8, 3), Tile(128, 64, 8, 4)],
}
DOWN = {
    16: [
        *(Tile(32, 256, 4, 3), Tile(64, 128, 4, 3), Tile(64, 128, 4, 4), Tile(64, 256, 4, 2), Tile(64, 256, 4, 3)),
        *(Tile(32, 128, 4, 6), Tile(128, 128, 4, 3), Tile(128, 64, 4, 4)),
        *(Tile(64, 128, 4, 3, True), Tile(64, 128, 4, 5, True), Tile(64, 256, 4, 2, True), Tile(128, 128, 4, 3, True)),
        *(Tile(128, 64, 4, 4, True), Tile(128, 128, 8, 4, True), Tile(128, 256, 8, 2, True)),
    ],
    32: [
        *(Tile(64, 128, 4, 3), Tile(64, 64, 4, 4), Tile(128, 64, 4, 4), Tile(64, 128, 4, 4, True)),
        *(Tile(128, 64, 4, 4, True), Tile(128, 128, 4, 3, True), Tile(128, 128, 8, 3, True)),
    ],
    64: [Tile(128, 64, 4, 3), Tile(128, 64, 4, 4), Tile(128, 64, 8, 4), Tile(256, 64, 8, 3), Tile(64, 128, 4, 3)],
    128: [Tile(128, 64, 4, 3), Tile(128, 64, 8, 3), Tile(128, 64, 8, 4), Tile(256, 64, 8, 3)],
}


class Load:
    """Weights of some layers, and tokens with their experts."""

    def __init__(self, tokens: int, num: int, layers: int) -> None:
        torch.manual_seed(tokens)
        made = {"device": "cuda", "dtype": torch.bfloat16}
        self.ups = [torch.empty(num, 2 * I, E, **made).uniform_(-0.05, 0.05) for _ in range(layers)]
        self.downs = [torch.empty(num, E, I, **made).uniform_(-0.05, 0.05) for _ in range(layers)]
        self.x = torch.randn(tokens, E, **made)
        self.router = torch.randn(num, E, **made)
        self.use(tokens)

    def use(self, tokens: int) -> None:
        """Take so many tokens."""
        torch.manual_seed(tokens)
        self.x = torch.randn(tokens, E, device="cuda", dtype=torch.bfloat16)
        weights, ids = route(torch.randn(tokens, len(self.ups[0]), device="cuda"), A, True)
        self.weights, self.ids = weights, ids.int()
        self.alone = moe_choose.Picked(weights, self.ids, self.ids, None, False, True)
        self.h = torch.randn(tokens * A, I, device="cuda", dtype=torch.bfloat16)


ALONE = [
    *(Tile(bn, 0, warps, 1) for bn in (1, 2, 4, 8) for warps in (4, 8)),
]


def alone_of(tokens: int) -> bool:
    return tokens <= 4


def downs_of(tokens: int, bm: int) -> list[Tile]:
    return ALONE if alone_of(tokens) else DOWN[bm]


def check(job: tuple[int, int, str, Tile]) -> float:
    """Compile one candidate; the error of a layer with it. NaN: it cannot run."""
    tokens, bm, which, tile = job
    load = Load(min(tokens, 64), 16, 1)
    base = tiles(tokens * A, X, torch.bfloat16, alone=True)
    z = replace(base, bm=bm, rows_alone=1 << 20 if alone_of(tokens) else 0, **{which: tile})
    z = replace(z, down=downs_of(tokens, bm)[0]) if which == "up" else replace(z, up=UP[bm][0])
    maps = (load.ups[0], load.downs[0], "silu")
    try:
        if z.rows_alone:
            want = both(load.x, load.router[:16].float(), A, True, *maps).float()
            got = moe_few.few_tokens(load.x, load.router[:16], A, True, *maps, z=z)[0].float()
        else:
            want = experts(load.x, load.weights, load.ids, *maps).float()
            got = moe.grouped(load.x, load.weights, load.ids, *maps, z).float()
        return float((got - want).abs().max() / want.abs().max())
    except Exception as error:
        print(f"{job}: {type(error).__name__}: {str(error)[:100]}", flush=True)
        return float("nan")


def best_tiles(load: Load, tokens: int, bm: int, errors: dict[tuple[int, int, str, Tile], float]) -> tuple[Tiles, dict]:
    """The fastest tiles of a load with blocks of `bm` rows, and all times."""
    alone, layers = alone_of(tokens), len(load.ups)
    s = load.alone if alone else sort(load.ids, X, bm)
    base = Tiles(bm, UP[bm][0], DOWN[bm][0])
    times: dict[str, list[tuple[float, Tile]]] = {"up": [], "down": []}
    for which, found in (("up", UP[bm]), ("down", downs_of(tokens, bm))):
        for tile in dict.fromkeys(found):
            if not errors[tokens, bm, which, tile] < 0.02:
                print(f"{tokens} {bm} {which} {tile}: error {errors[tokens, bm, which, tile]}")
                continue
            z = replace(base, **{which: tile})
            if which == "up":
                took = in_graph(
                    lambda i, z=z: moe.up_product(load.x, load.ups[i], I, load.weights, s, "silu", z), layers, 12
                )
            elif alone:
                took = in_graph(lambda i, z=z: moe.down_alone(load.h, load.downs[i], load.ids, z), layers, 12)
            else:
                took = in_graph(lambda i, z=z: moe.down_product(load.h, load.downs[i], load.weights, s, z), layers, 12)
            times[which].append((took, tile))
        times[which].sort(key=lambda one: one[0])
    return Tiles(bm, times["up"][0][1], times["down"][0][1], 1 << 20 if alone else 0), times


def whole(load: Load, z: Tiles | str) -> dict[str, float]:
    """Microseconds of a layer's parts; "library" and "hopper" are those paths."""
    layers, out = len(load.ups), {}

    def layer(i: int) -> object:
        args = (load.x, load.weights, load.ids, load.ups[i], load.downs[i])
        if z == "hopper":
            return joined(moe_many.by_hopper(*args), torch.bfloat16, None)
        if not isinstance(z, str) and z.rows_alone:
            return moe_few.few_tokens(load.x, load.router, A, True, load.ups[i], load.downs[i], "silu", z=z)
        if isinstance(z, str):
            return joined(moe_many.by_library(*args, "silu"), torch.bfloat16, None)
        return moe.grouped(*args, "silu", z)

    out["layer"] = in_graph(layer, layers, 6)
    out["choose"] = in_graph(lambda i: moe_choose.choose_triton(load.x, load.router, A, True), layers, 12)
    if isinstance(z, str):
        s, hopper = sort(load.ids, X, 128), moe_many.hopper_products()
        rows = moe_many.spread_rows(load.x, s, A)
        out["sort"] = in_graph(lambda i: sort(load.ids, X, 128), layers, 12)
        out["spread"] = in_graph(lambda i: moe_many.spread_rows(load.x, s, A), layers, 12)
        if z == "hopper":
            out["up"] = in_graph(lambda i: hopper.product(rows, load.ups[i], s, True), layers, 6)
            out["up, fetching"] = in_graph(lambda i: hopper.product(load.x, load.ups[i], s, True, A), layers, 6)
            out["down"] = in_graph(lambda i: hopper.product(load.h, load.downs[i], s, False), layers, 6)
    elif not z.rows_alone:
        out["sort"] = in_graph(lambda i: sort(load.ids, X, z.bm), layers, 12)
    return {name: round(us, 1) for name, us in out.items()}


def check_all(jobs: list[tuple[int, int, str, Tile]], known: Path | None) -> dict[tuple[int, int, str, Tile], float]:
    """The error of every candidate, from a pool of processes or from the file of an earlier --check."""
    if known:
        return eval(known.read_text(), {"Tile": Tile, "nan": float("nan")})
    # why: tiles compile alike for all loads but those without sorting
    alike = {(alone_of(j[0]), *j[1:]): j for j in jobs}
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        found = dict(zip(alike, pool.map(check, alike.values(), chunksize=1), strict=True))
    return {j: found[(alone_of(j[0]), *j[1:])] for j in jobs}


def main(args: list[str]) -> None:
    """Tune all loads; `--check FILE` only compiles and compares, a FILE.checked as first argument skips that."""
    jobs = [
        (tokens, bm, which, tile)
        for tokens, rows in LOADS.items()
        for bm in rows
        for which, found in (("up", UP[bm]), ("down", downs_of(tokens, bm)))
        for tile in dict.fromkeys(found)
    ]
    errors = check_all(jobs, Path(args[0]) if args[:1] and args[0].endswith(".checked") else None)
    if args[:1] == ["--check"]:
        Path(args[1]).write_text(repr(errors))
        return
    report, load = [], Load(1, X, 2)
    for tokens, rows in LOADS.items():
        load.use(tokens)
        hit = int(load.ids.unique().numel())
        floors = hit * 2 * I * E * 2 / 4.375e6, hit * I * E * 2 / 4.375e6
        for bm in rows:
            z, times = best_tiles(load, tokens, bm, errors)
            print(f"{tokens} tokens, {hit} experts, rows {bm}: {z}", flush=True)
            for which, floor in zip(("up", "down"), floors, strict=True):
                line = ", ".join(
                    f"{t.bn}/{t.bk}/{t.warps}/{t.stages}{'T' if t.turned else ''} {us:.1f}"
                    for us, t in times[which][:6]
                )
                print(f"  {which} floor {floor:.1f}: {line} .. {times[which][-1][0]:.1f}")
            parts = whole(load, z)
            print(f"  {parts}", flush=True)
            report.append({"tokens": tokens, "hit": hit, "bm": bm, "times": str(times), **parts})
    for tokens in (256, 512, 1024, 2048, 4096, 8192, 16384):
        load.use(tokens)
        flop = 6 * tokens * A * I * E
        want = moe_many.by_library(load.x, load.weights, load.ids, load.ups[0], load.downs[0], "silu").float()
        for path in ("hopper", "library") if moe_many.hopper_products() is not None else ("library",):
            if path == "hopper":
                got = moe_many.by_hopper(load.x, load.weights, load.ids, load.ups[0], load.downs[0]).float()
                print(f"  error {(got - want).abs().max() / want.abs().max():.1e}")
            parts = whole(load, path)
            print(f"{path}, {tokens} tokens: {parts} {flop / parts['layer'] / 1e6:.0f} TFLOP/s", flush=True)
            report.append({"tokens": tokens, "path": path, **parts})
    if args:
        Path(args[-1]).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
