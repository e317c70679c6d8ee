"""`vllm bench engine`: the cases of the yardstick, each beside its floor and what vLLM was measured at.

    cases ─▶ figures ─┬─▶ the table          time, share of the floor, ratio to vLLM, host cost of a step
                      ├─▶ --ledger FILE      a JSON line per case, with moment, machine, versions
                      └─▶ --picture FILE     an SVG or a PNG

Dummy weights, no prefix cache, context 4,096, 512 rows, 0.85 of the memory, unless told otherwise.
Called by: entrypoints/cli/bench.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.entrypoints.bench.cases import CASES, STEPS
from vllm.entrypoints.bench.offline import add_engine_arguments, make_llm, vocab_of, write_json

if TYPE_CHECKING:
    from vllm.entrypoints.llm import LLM

NAMES = ("engine",)
HEAD = f"{'case':10}{'':>20}{'floor':>12}{'of floor':>10}{'vLLM':>12}{'to vLLM':>9}{'host/step':>12}"
HELP = "run the yardstick's cases; prints time, share of the floor, ratio to vLLM, host cost of a step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which cases, where the rows go, and every knob of the engine."""
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    add("--scale", type=float, default=1.0, help="shrink lengths and counts, for slow machines (default: 1)")
    add("--output-json", metavar="FILE", help="write the rows there")
    add("--ledger", metavar="FILE", help="append a JSON line per row, such as benchmarks/ledger.jsonl")
    add("--picture", metavar="FILE", help="draw the rows, as .svg or .png")
    usual = {"load_format": "dummy", "max_model_len": 4096, "max_num_seqs": 512, "gpu_memory_utilization": 0.85}
    add_engine_arguments(parser, enable_prefix_caching=False, **usual)


def run(arguments: argparse.Namespace) -> int:
    """Print a row as soon as its case is done."""
    from vllm.entrypoints.bench import picture
    from vllm.entrypoints.bench.cases import Cases
    from vllm.errors import ValidationError, nearest

    for case in arguments.cases:
        if case not in CASES:
            raise ValidationError(f"case {case!r} is not known.{nearest(case, list(CASES))}", field="case", value=case)
    if not 0 < arguments.scale <= 1:
        raise ValidationError.of("scale", arguments.scale, "above 0 and at most 1")
    if arguments.picture is not None:
        picture.check(arguments.picture)
    rows = []
    with make_llm(arguments) as llm:
        judge = Judge(llm, arguments)
        cases = Cases(llm, vocab_of(llm), arguments.scale)
        cases.warm_up()
        print(judge.title)
        print(HEAD)
        for case in arguments.cases or CASES:
            row = judge.judged(cases.run(case))
            print(shown(row), flush=True)
            rows.append(row)
            if arguments.ledger is not None:
                with open(arguments.ledger, "a", encoding="utf-8") as ledger:
                    ledger.write(
                        json.dumps({"benchmark": "engine", **about(judge.device), **judge.about, **row}) + "\n"
                    )
    if arguments.picture is not None:
        picture.draw(arguments.picture, judge.title, rows)
    write_json(arguments.output_json, {**judge.about, "rows": rows})
    return 0


class Judge:
    """Puts a row beside its floor and beside vLLM's."""

    def __init__(self, llm: LLM, arguments: argparse.Namespace) -> None:
        from vllm.assembly import device_facts, make_plan
        from vllm.entrypoints.bench.offline import engine_args
        from vllm.entrypoints.bench.recorded import yardstick
        from vllm.parts.decoder import Decoder
        from vllm.planning.floor import reachable

        self._plan, self._facts = llm.llm_engine.assembled.plan, device_facts()
        # why: the engine that is there takes the memory which a second plan would look for
        empty = replace(self._facts, free_bytes=self._facts.total_bytes, others=())
        network = make_plan(engine_args(arguments), weights=False, device=empty)[1].decoder
        self._network = network if isinstance(network, Decoder) else None
        quantization = self._plan.worker.quantization
        self._speed = reachable(self._facts, quantization)
        self.device, self._scale = self._facts.name, arguments.scale
        self._name = yardstick(self._plan.architecture, self._plan.num_parameters, quantization)
        model = self._name or arguments.model or "builtin"
        command = f"vllm bench engine --model {model}" + (f" --scale {self._scale:g}" if self._scale != 1 else "")
        stored = "" if quantization == "none" else f", {quantization}"
        self.about = {"model": model, "dtype": self._plan.worker.dtype + stored, "command": command}
        self.title = f"{model} as {self.about['dtype']} on {self.device}" + (
            "" if self._scale == 1 else f", x {self._scale:g}"
        )

    def judged(self, figures: dict[str, Any]) -> dict[str, Any]:
        """The row with value and unit, and floor, share of it, vLLM's and the ratio (over 1 is faster) where known."""
        from vllm.entrypoints.bench.recorded import recorded

        case = figures["case"]
        value, unit = _value(figures)
        floor = self._floor(case, figures)
        theirs = recorded(self._name, self.device, case) if self._scale == 1 else None
        is_time = unit == "ms"

        def ratio(other: float | None, ours_first: bool) -> float | None:
            if other is None:
                return None
            return round(value / other if ours_first else other / value, 4)

        return {
            **figures,
            "value": value,
            "unit": unit,
            "floor": None if floor is None else round(floor, 4),
            "share_of_floor": ratio(floor, not is_time),
            "vllm": theirs,
            "to_vllm": ratio(theirs, not is_time),
        }

    def _floor(self, case: str, figures: dict[str, Any]) -> float | None:
        """In the row's unit; None for mixed traffic, other devices than known GPUs, networks that are not described."""
        from vllm.planning.floor import decode_floor, prefill_floor

        if self._speed is None or self._network is None:
            return None
        if case in STEPS:
            middle = figures["ctx"] + figures["out"] // 2
            return 1e3 * decode_floor(self._plan, self._network, self._speed, STEPS[case][0], middle)
        if case == "prefill":
            num = figures["out"]
            seconds = prefill_floor(self._plan, self._network, self._speed, num, figures["inp"] // num)
            return (figures["inp"] + num) / seconds
        return None


def shown(row: dict[str, Any]) -> str:
    """A line of the table."""

    def number(name: str, form: str) -> str:
        return "-" if row[name] is None else format(row[name], form)

    form = ".3f" if row["unit"] == "ms" else ",.0f"
    value = f"{row['value']:{form}} {row['unit']}"
    return (
        f"{row['case']:10}{value:>20}{number('floor', form):>12}{number('share_of_floor', '.0%'):>10}"
        f"{number('vllm', form):>12}{number('to_vllm', '.2f'):>9}{row['host_ms']:>9.3f} ms"
    )


def about(device: str) -> dict[str, Any]:
    """When, what and where, in the words of benchmarks/ledger.jsonl."""
    from importlib.metadata import version

    from vllm.version import __version__

    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit or f"vllm {__version__}",
        "machine": f"{device}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _value(figures: dict[str, Any]) -> tuple[float, str]:
    """The yardstick's figure of a case, and its unit."""
    if "step_ms" in figures:
        return figures["step_ms"], "ms"
    if figures["case"] in ("prefill", "mixed"):
        return figures["tot_tok_s"], "tok/s"
    return figures["out_tok_s"], "out tok/s"
