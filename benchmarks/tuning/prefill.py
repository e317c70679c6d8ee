"""`python -m benchmarks.tuning.prefill [OUT.json]`: prefill attention over tiles and shapes, TFLOP/s of visible pairs.

Each kernel is checked against the plain one in float32, then timed with events over a cache that no call leaves in the
second-level cache whole. The library's attention over the same tokens (contiguous, equal lengths) is beside it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch
from vllm.ops.triton.prefill import PlainTile, PrefillCall, find_work, prefill_plain

try:
    from vllm.ops.triton.prefill_hopper import HopperTile, prefill_hopper
except ImportError:
    HopperTile = prefill_hopper = None


@dataclass(frozen=True)
class Case:
    name: str
    heads: int
    kv: int
    dim: int
    queries: tuple[int, ...]
    contexts: tuple[int, ...]
    window: int | None = None
    softcap: float | None = None
    block: int = 64


CASES = (
    Case("8b 8x2048", 32, 8, 128, (2048,) * 8, (0,) * 8),
    Case("8b 16x1024", 32, 8, 128, (1024,) * 16, (0,) * 16),
    Case("8b 2x8192", 32, 8, 128, (8192,) * 2, (0,) * 2),
    Case("30b 8x2048", 32, 4, 128, (2048,) * 8, (0,) * 8),
    Case("0.6b 8x2048", 16, 8, 128, (2048,) * 8, (0,) * 8),
    Case("chunks 4x512 after 8k", 32, 8, 128, (512,) * 4, (8192,) * 4),
    Case("ragged", 32, 8, 128, (3000, 100, 700, 50, 2000, 1, 33, 5000), (0, 900, 0, 3000, 100, 50, 0, 2000)),
    Case("window 1024", 32, 8, 128, (4096,) * 4, (0,) * 4, 1024),
    Case("d64 8x2048", 32, 8, 64, (2048,) * 8, (0,) * 8),
    Case("d256 8x2048", 16, 4, 256, (2048,) * 8, (0,) * 8),
    Case("softcap", 32, 8, 128, (2048,) * 8, (0,) * 8, None, 50.0),
    Case("block 16", 32, 8, 128, (2048,) * 8, (0,) * 8, None, None, 16),
)


def made(c: Case) -> tuple[torch.Tensor, PrefillCall, Batch]:
    torch.manual_seed(0)
    lens = [a + b for a, b in zip(c.queries, c.contexts, strict=True)]
    need = [-(-n // c.block) for n in lens]
    ids = torch.randperm(sum(need)) + 1
    table = torch.zeros(len(lens), max(need), dtype=torch.int32)
    for s, part in enumerate(ids.split(need)):
        table[s, : need[s]] = part
    flat = torch.empty(sum(need) + 1, 2 * c.kv * c.block * c.dim, dtype=torch.bfloat16, device="cuda").normal_()
    total = sum(c.queries)
    q = torch.randn(total, c.heads + 2 * c.kv, c.dim, dtype=torch.bfloat16, device="cuda")[:, : c.heads]
    start = torch.tensor([0, *torch.tensor(c.queries).cumsum(0)], dtype=torch.int32, device="cuda")
    seq_lens = torch.tensor(lens, dtype=torch.int32, device="cuda")
    shape = AttentionShape(c.heads, c.kv, c.dim, c.dim, c.dim**-0.5, c.window, c.softcap)
    call = PrefillCall(flat, table.cuda(), seq_lens, c.block, shape, None)
    batch = Batch(start, start, start, seq_lens, [], total, len(lens), max(c.queries), max(lens), list(c.queries), lens)
    return q, call, batch


def flops(c: Case) -> float:
    pairs = 0
    for n, context in zip(c.queries, c.contexts, strict=True):
        at = torch.arange(context, context + n, dtype=torch.int64) + 1
        pairs += int((at if c.window is None else at.clamp(max=c.window)).sum())
    return 4.0 * pairs * c.heads * c.dim


def time_of(run, reps: int = 5) -> float:
    """Microseconds, best of some."""
    run()
    torch.cuda.synchronize()
    best = float("inf")
    for _ in range(reps):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        run()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) * 500)
    return best


def variants(c: Case) -> list:
    plain = [PlainTile(128, 8, 3), PlainTile(64, 4, 2), PlainTile(64, 4, 3), PlainTile(128, 8, 2), PlainTile(128, 4, 2)]
    if c.dim == 256:
        hopper = [(64, 2, True, 1), (64, 2, False, 1), (32, 3, True, 1)]
        plain = [PlainTile(64, 4, 2), PlainTile(128, 8, 2)]
    else:
        hopper = [(128, 2, True), (128, 2, True, 1), (128, 2, False), (64, 3, True)]
    if c.name not in ("8b 8x2048", "d64 8x2048", "d256 8x2048"):
        hopper, plain = hopper[:2], plain[1:2]
    if HopperTile is None:
        return plain
    return [*(HopperTile(*h) for h in hopper), *plain]


def want_of(q: torch.Tensor, call: PrefillCall, batch: Batch) -> torch.Tensor:
    exact = PrefillCall(call.flat.float(), call.table, call.seq_lens, call.block_size, call.shape, None)
    want = torch.empty(q.shape, device="cuda")
    prefill_plain(q.float().contiguous(), exact, batch, 0, want, PlainTile(64, 4, 1))
    return want


def library(c: Case) -> float | None:
    if len(set(c.queries)) > 1 or any(c.contexts) or c.window or c.softcap:
        return None
    num, length = len(c.queries), c.queries[0]
    q = torch.randn(num, c.heads, length, c.dim, dtype=torch.bfloat16, device="cuda")
    k = torch.randn(num, c.kv, length, c.dim, dtype=torch.bfloat16, device="cuda")
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            return time_of(lambda: F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True))
    except Exception as error:
        print(f"  library: {str(error)[:100]}")
        return None


def check(name: str) -> None:
    """Compile and compare the variants of a case; in a process of its own, since a kernel that hangs takes it along."""
    c = next(c for c in CASES if c.name == name)
    q, call, batch = made(c)
    want = want_of(q, call, batch)
    for i, z in enumerate(variants(c)):
        out = torch.full(q.shape, float("nan"), dtype=q.dtype, device="cuda")
        try:
            kernel_of(z)(q, call, batch, 0, out, z)
            torch.cuda.synchronize()
            print("PASSED", i, float((out.float() - want).abs().max() / want.abs().max()), flush=True)
        except Exception as failure:
            print(f"{name}: {z}: {type(failure).__name__} {str(failure)[:200]}", flush=True)


def kernel_of(z: object) -> Callable[..., None]:
    return prefill_hopper if HopperTile is not None and isinstance(z, HopperTile) else prefill_plain


def one(c: Case, errors: dict[int, float]) -> list[dict]:
    """Time what passed."""
    report = []
    q, call, batch = made(c)
    work = flops(c)
    for i, z in enumerate(variants(c)):
        if not errors.get(i, 1.0) < 0.02:
            print(f"{c.name}: {z}: error {errors.get(i)}", flush=True)
            continue
        out = torch.empty(q.shape, dtype=q.dtype, device="cuda")
        took = time_of(lambda z=z, out=out: kernel_of(z)(q, call, batch, 0, out, z))
        report.append({"case": c.name, "tile": str(z), "us": round(took, 1), "tflops": round(work / took / 1e6)})
        print(f"{c.name}: {z}: {took:.0f} us, {work / took / 1e6:.0f} TFLOP/s, error {errors[i]:.1e}", flush=True)
    took = library(c)
    if took:
        print(f"{c.name}: library {took:.0f} us, {work / took / 1e6:.0f} TFLOP/s", flush=True)
        report.append({"case": c.name, "tile": "library", "us": round(took, 1), "tflops": round(work / took / 1e6)})
    if c is CASES[0]:
        print(f"finding work: {time_of(lambda: (batch.scratch.clear(), find_work(batch, 0, 32, None))):.0f} us")
    return report


def check_all() -> list[dict[int, float]]:
    """Errors of the variants of each case, all cases side by side."""
    command = [sys.executable, "-m", "benchmarks.tuning.prefill", "--check"]
    children = [subprocess.Popen([*command, c.name], stdout=subprocess.PIPE, text=True) for c in CASES]
    passed: list[dict[int, float]] = []
    deadline = time.monotonic() + 75
    for child in children:
        try:
            said, _ = child.communicate(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
            print("a case hangs", flush=True)
        words = [line.split() for line in said.splitlines()]
        print("\n".join(line for line in said.splitlines() if not line.startswith("PASSED")), end="", flush=True)
        passed.append({int(w[1]): float(w[2]) for w in words if w[:1] == ["PASSED"]})
    return passed


def main(args: list[str]) -> None:
    """Time each case; `--check-all FILE` only compiles and compares, a FILE.checked as first argument skips that."""
    if args[:1] == ["--check"]:
        check(args[1])
        return
    if args and args[0].endswith(".checked"):
        passed = eval(Path(args[0]).read_text(), {"nan": float("nan")})
    else:
        passed = check_all()
    if args[:1] == ["--check-all"]:
        Path(args[1]).write_text(repr(passed))
        return
    report = [line for c, errors in zip(CASES, passed, strict=True) for line in one(c, errors)]
    if args:
        Path(args[-1]).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
