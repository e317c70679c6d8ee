"""`vllm bench startup`: fresh processes, and where each second of their start goes. Called by: cli/bench.py.

The first ones are cold: their folder for compiled kernels is new and empty. The warm ones find what a cold one left.
The page cache of the operating system is as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from vllm.entrypoints.bench.offline import add_engine_arguments, write_json

NAMES = ("startup",)
HELP = "start an engine in fresh processes, cold and warm, and print where each second went"
STAGES = {
    "python": "interpreter",
    "import": "import vllm",
    "config": "arguments",
    "planning": "planning",
    "device": "device, on a GPU torch too",
    "torch": "import torch and kernels",
    "weights": "weights",
    "kernels": "kernels, graphs, cache",
    "workers": "worker processes",
    "other": "tokenizer and engine",
    "first": "first token",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and every knob of the engine."""
    add = parser.add_argument
    add("--num-iters-cold", type=int, default=1, help="starts with an empty cache of kernels (default: %(default)s)")
    add("--num-iters-warmup", type=int, default=0, help="warm starts that are not counted (default: %(default)s)")
    add("--num-iters-warm", type=int, default=3, help="warm starts that are (default: %(default)s)")
    add("--output-json", metavar="FILE", help="write the figures there")
    add("--ledger", metavar="FILE", help="append a JSON line per kind of start, such as benchmarks/ledger.jsonl")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print mean seconds by stage, cold and warm."""
    from vllm.config.args import EngineArgs
    from vllm.entrypoints.bench.recorded import recorded_start
    from vllm.errors import ValidationError

    for name, least in (("num_iters_cold", 1), ("num_iters_warmup", 0), ("num_iters_warm", 0)):
        if getattr(arguments, name) < least:
            raise ValidationError.of(name, getattr(arguments, name), f"at least {least}")
    EngineArgs.from_cli_args(arguments)  # refuses what is wrong before anything is started
    known = EngineArgs.__dataclass_fields__
    keywords = {
        name: value for name, value in vars(arguments).items() if name in known and value != known[name].default
    }
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    what: dict[str, str] = {}
    for _ in range(arguments.num_iters_cold):
        with tempfile.TemporaryDirectory() as cache:
            seconds, what = start(keywords, cache)
            cold.append(seconds)
            is_last = len(cold) == arguments.num_iters_cold
            for i in range(arguments.num_iters_warmup + arguments.num_iters_warm if is_last else 0):
                seconds, _ = start(keywords, cache)
                if i >= arguments.num_iters_warmup:
                    warm.append(seconds)
    means = {"cold": _means(cold), "warm": _means(warm)} if warm else {"cold": _means(cold)}
    print(table(means, recorded_start(what["model"], what["device"])))
    if arguments.ledger is not None:
        with open(arguments.ledger, "a", encoding="utf-8") as ledger:
            for kind, mean in means.items():
                ledger.write(json.dumps(_row(kind, mean, what)) + "\n")
    figures: dict[str, Any] = {"stages": means}
    for name, found in (("cold", cold), ("warm", warm)):
        times = [sum(seconds.values()) for seconds in found]
        figures[f"avg_{name}_startup_time"] = statistics.fmean(times) if times else None
        figures[f"{name}_startup_times"] = times
    write_json(arguments.output_json, figures)
    return 0


def start(keywords: dict[str, Any], cache: str) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds by stage of one fresh process whose kernels are kept in `cache`, and the names of network and device.

    ValueError with its last words.
    """
    from vllm.util import env

    around = env.for_child(VLLM_CACHE_ROOT=cache, TRITON_CACHE_DIR=f"{cache}/triton")
    command = [sys.executable, "-m", "vllm.entrypoints.bench.probe", repr(time.time()), json.dumps(keywords)]
    done = subprocess.run(command, env=around, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ValueError(f"the engine did not start: {last}")
    seconds, what = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds, what


def table(means: dict[str, dict[str, float]], theirs: dict[str, float]) -> str:
    """Stages down, kinds of start across, the total until ready and until the first token; vLLM's where it is known."""
    lines = [f"{'seconds':28}" + "".join(f"{kind:>10}" for kind in means)]
    for stage, words in STAGES.items():
        if any(stage in mean for mean in means.values()):
            if stage == "first":
                ready = {kind: sum(mean.values()) - mean["first"] for kind, mean in means.items()}
                lines.append(f"{'ready':28}" + "".join(f"{seconds:>10.3f}" for seconds in ready.values()))
                if theirs:
                    lines.append(
                        f"{'  vLLM 0.25.1, measured':28}" + "".join(f"{theirs[kind]:>10.3f}" for kind in ready)
                    )
                    ratios = "".join(f"{theirs[kind] / seconds:>10.2f}" for kind, seconds in ready.items())
                    lines.append(f"{'  times as fast':28}{ratios}")
            lines.append(f"  {words:26}" + "".join(f"{mean.get(stage, 0.0):>10.3f}" for mean in means.values()))
    return "\n".join([*lines, f"{'in all':28}" + "".join(f"{sum(mean.values()):>10.3f}" for mean in means.values())])


def _row(kind: str, mean: dict[str, float], what: dict[str, str]) -> dict[str, Any]:
    """A line of the ledger."""
    from vllm.entrypoints.bench.engine import about

    ready = sum(mean.values()) - mean["first"]
    given = {"command": "vllm bench startup", "model": what["model"], "case": "start", "kernels": kind}
    times = {"import_s": mean["import"], "ready_s": ready, "first_s": ready + mean["first"]}
    return {"benchmark": "engine", **about(what["device"]), **given, **{k: round(v, 3) for k, v in times.items()}}


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.fmean(one[stage] for one in found) for stage in STAGES if stage in found[0]}
