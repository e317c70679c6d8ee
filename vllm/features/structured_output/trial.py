"""The program that compiles a grammar first, so that one that never ends, or eats memory, does so here.

    stdin   one line of JSON per question {"kind", "text"}; the first line says which tokenizer
    stdout  one line of JSON per answer: {} for a grammar that is fine, {"why"} for one that is not, or {"ready"}

A grammar is compiled and walked through with random allowed tokens; a step that takes too long, or that fails, refuses
it. Its time is the parent's to limit, by killing this process; its memory is limited here. Started by: host, as
`python -m vllm.features.structured_output.trial`. Ends with its parent.
"""

import contextlib
import ctypes
import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vllm.features.structured_output.compiler import Compiler, first_lines
from vllm.features.structured_output.source import Source

MAX_MEMORY = 2 * 2**30
"""Bytes beyond those taken at the start."""
MAX_STEP_S = 0.5
NUM_STEPS = 64
_PR_SET_PDEATHSIG = 1


def walk(matcher: Any, num_logits: int, seed: str) -> str | None:
    """Why the grammar cannot be used, found on a random way through it; None when nothing was found."""
    rng = random.Random(seed)
    for _ in range(NUM_STEPS):
        began = time.monotonic()
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        took = time.monotonic() - began
        if matcher.is_error():
            return f"it fails on the way: {first_lines(matcher.get_error())}"
        if took > MAX_STEP_S:
            return f"one step took {took:.1f} s; the cap (time of a step) is {MAX_STEP_S} s"
        if matcher.is_stopped() or not mask:
            return None
        token = _pick(rng, mask, num_logits)
        if not matcher.consume_token(token) or matcher.is_stopped():
            return first_lines(matcher.get_error()) if matcher.is_error() else None
    return None


def _pick(rng: random.Random, mask: int, size: int) -> int:
    """A random set bit: near a random place, so that a mask of 100,000 bits costs little."""
    place = rng.randrange(size)
    above = mask >> place
    if above:
        return place + (above & -above).bit_length() - 1
    return (mask & -mask).bit_length() - 1


def answer(compiler: Compiler, question: dict[str, str]) -> dict[str, str]:
    """The verdict on one grammar."""
    try:
        why = walk(compiler.matcher(Source(question["kind"], question["text"])), compiler.num_logits, question["text"])
    except ValueError as error:
        return {"why": str(error)}
    except MemoryError:
        return {"why": f"it takes more memory than the cap ({MAX_MEMORY >> 20} MiB)"}
    return {} if why is None else {"why": why}


def main() -> None:
    """Answer until the parent closes the pipe."""
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(text: dict[str, Any]) -> None:
        os.write(out, json.dumps(text).encode() + b"\n")

    # why: a grammar that never ends reads no end of file; the kernel ends it all the same
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    compiler = Compiler(**json.loads(sys.stdin.readline()))
    _ = compiler.tokenizer
    with contextlib.suppress(ValueError, OSError):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_MEMORY, taken + MAX_MEMORY))
    say({"ready": True})
    for line in sys.stdin:
        say(answer(compiler, json.loads(line)))


if __name__ == "__main__":
    main()
