"""`python -m benchmarks.tuning.decode [HEADS ...]`: time decode attention cut in many ways, keep the best.

For each number of heads (sequences x kv heads) every way is timed for three networks and three sorts of lengths; the
way with the least mean of (time / best time of the case) is kept. Results of all ways are compared with each other.
Writes `vllm/ops/triton/decode_ways.py`. Takes one GPU and a minute.
"""

import itertools
import multiprocessing
import random
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.tuning.timing import in_graph
from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.heads import HeadsShape
from vllm.ops.triton import decode
from vllm.ops.triton import decode_ways as room
from vllm.ops.triton.attention import PagedCache
from vllm.ops.triton.decode_ways import Way

NETWORKS = {"8b": (8, 4, False), "0.6b": (8, 2, True), "30b": (4, 8, True)}
"""kv heads, queries of each, norms"""
HEADS = (32, 64, 128, 192, 256, 512)
KEPT = {16: Way(32, 1, True, 3), 1 << 20: Way(1, 1, False, 5)}
"""Not tuned here but by whole steps: few heads, and many, which are best left whole there and not when timed alone."""
BLOCK, DIM, WIDTH = 64, 128, 64
_LARGER_THAN_CACHE = 150 << 20


def lengths(seqs: int) -> dict[str, list[int]]:
    """The sorts of lengths."""
    dice = random.Random(0)
    return {"1150": [1150] * seqs, "300": [300] * seqs, "ragged": [dice.randint(100, 2000) for _ in range(seqs)]}


def candidates(heads: int) -> list[Way]:
    """Ways worth trying: whole waves of programs, of which so many fit on 132 processors."""
    found = []
    for ahead, stages, fit in ((False, 3, 660), (True, 3, 396), (False, 5, 396)):
        shares = {1} if heads >= 256 else set()
        shares |= {fit * waves // heads for waves in (1, 2, 3)} | {1 << (max(1, 1056 // heads)).bit_length() - 1}
        for n in sorted(s for s in shares if 1 <= s <= 32):
            found.append(Way(n, 1, ahead, stages))
        found += [Way(4, 12, ahead, stages), Way(8, 6, ahead, stages), Way(8, 4, ahead, stages)]
    return list(dict.fromkeys(found))


class Call:
    """One network, with sequences of these lengths."""

    def __init__(self, network: str, lens: list[int]) -> None:
        kv, group, norm = NETWORKS[network]
        seqs, heads, at = len(lens), kv * group, 1
        blocks = [-(-n // BLOCK) for n in lens]
        order = torch.randperm(sum(blocks), generator=torch.Generator().manual_seed(0)) + 1
        table = torch.zeros(seqs, WIDTH, dtype=torch.int32)
        for row, num in zip(table, blocks, strict=True):
            row[:num], at = order[at - 1 : at - 1 + num], at + num
        last = torch.tensor(lens) - 1
        slots = table[torch.arange(seqs), last // BLOCK].long() * BLOCK + last % BLOCK
        size = (sum(blocks) + 1, kv * BLOCK * 2 * DIM)
        self.copies = min(6, 1 + _LARGER_THAN_CACHE // (size[0] * size[1] * 2))
        self.caches = [PagedCache(torch.randn(size, device="cuda", dtype=torch.bfloat16)) for _ in range(self.copies)]
        qkv = torch.randn(seqs, (heads + 2 * kv) * DIM, device="cuda", dtype=torch.bfloat16)
        weight = torch.rand(DIM, device="cuda") + 0.5 if norm else None
        angle = torch.rand(seqs, DIM // 2, device="cuda") * 6
        self.inputs = qkv, HeadsShape(heads, kv, DIM, 1e-6), (weight, weight), (angle.cos(), angle.sin())
        group_batch = GroupBatch(slots.cuda(), table.cuda(), BLOCK)
        self.batch = Batch(
            token_ids=slots,
            positions=last,
            query_start=torch.arange(seqs + 1, dtype=torch.int32, device="cuda"),
            seq_lens=(last + 1).int().cuda(),
            groups=[group_batch],
            num_tokens=seqs,
            num_seqs=seqs,
            max_query_len=1,
            max_seq_len=WIDTH * BLOCK,
            query_lens=[1] * seqs,
            host_seq_lens=lens,
        )
        self.shape = AttentionShape(heads, kv, DIM, DIM, DIM**-0.5)
        self.floor = sum(lens) * kv * DIM * 4 / 4.375e6

    def run(self, i: int, way: Way) -> torch.Tensor:
        decode.way_of, decode.EVEN = (lambda heads, tiles, lean=False: way), range(0)
        return decode.heads_attention_triton(*self.inputs, self.caches[i], self.batch, self.batch.groups[0], self.shape)


def compile_one(job: tuple[str, Way]) -> None:
    """In a process of its own, into the kernel cache."""
    Call(job[0], [400] * 8).run(0, job[1])
    torch.cuda.synchronize()


def times(heads: int, network: str, ways: list[Way]) -> dict[str, dict[Way, float]]:
    """Microseconds of each way by sort of lengths; a wrong one is left out."""
    out: dict[str, dict[Way, float]] = {}
    for sort, lens in lengths(heads // NETWORKS[network][0]).items():
        call, found = Call(network, lens), {}
        want = call.run(0, ways[0]).float()
        for way in ways:
            got = call.run(0, way).float()
            if float((got - want).norm() / want.norm()) < 8e-3:
                found[way] = in_graph(lambda i, call=call, way=way: call.run(i, way), call.copies, 12)
            else:
                print("wrong:", heads, network, sort, way)
        out[sort] = found
        now = room.way_of(heads, WIDTH)
        text = f"{min(found.values()):7.1f} by {tuple(min(found, key=found.get))}"
        print(f"{heads:5d} {network:5s} {sort:7s} floor {call.floor:7.1f}; now {found.get(now, 0):7.1f}; best {text}")
    return out


def best(heads: int) -> Way:
    """The way that is kept for so many heads."""
    ways, score = [*dict.fromkeys([room.way_of(heads, WIDTH), *candidates(heads)])], dict[Way, float]()
    networks = [n for n in NETWORKS if n != "30b" or heads in (64, 128, 256, 512, 1024)]
    cases = [found for n in networks for found in times(heads, n, ways).values()]
    for way in ways:
        if all(way in found for found in cases):
            score[way] = sum(found[way] / min(found.values()) for found in cases) / len(cases)
    kept = min(score, key=lambda way: score[way])
    print(
        f"{heads:5d} kept {tuple(kept)}: {score[kept]:.3f} of the best; before {score.get(ways[0], 0):.3f}", flush=True
    )
    return kept


def write(ways: dict[int, Way]) -> None:
    """Put the table into its file; a number of heads between two has the way of the nearer one."""
    known = sorted(ways.items())
    bounds = [(a + b) // 2 for (a, _), (b, _) in itertools.pairwise(known)]
    rows: list[Any] = [*bounds, "1 << 30"]
    rows[0] = known[0][0] if known[0][0] in KEPT else rows[0]
    rows[-2] = known[-2][0] * 3 // 2 if known[-1][0] in KEPT else rows[-2]
    lines = [f"    {most}: Way{tuple(way)}," for most, (_, way) in zip(rows, known, strict=True)]
    path = Path(room.__file__)
    head, rest = path.read_text().split("WAYS = {\n")
    path.write_text(head + "WAYS = {\n" + "\n".join(lines) + "\n}" + rest.split("}", 1)[1])


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]] or list(HEADS)
    kinds = [Way(2, 1, *kind) for kind in ((False, 3), (True, 3), (False, 5))]
    with multiprocessing.get_context("spawn").Pool(9) as pool:
        pool.map(compile_one, [(name, way) for name in NETWORKS for way in kinds], chunksize=1)
    write(KEPT | {heads: best(heads) for heads in asked})
