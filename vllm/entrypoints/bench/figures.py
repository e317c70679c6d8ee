"""From outcomes to figures, and to the table that people paste, in vLLM's words.

Does not know: servers. Called by: serve.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vllm.entrypoints.bench.asking import Outcome

METRICS = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}
"""Name -> its short and long words."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarize(
    outcomes: Sequence[Outcome], seconds: float, goals: dict[str, float], percents: Sequence[float]
) -> dict[str, Any]:
    """Every figure. `goals` (milliseconds by metric) make the goodput."""
    good = [o for o in outcomes if not o.error]
    num_in, num_out = sum(o.prompt_len for o in good), sum(o.output_len for o in good)
    series = {
        "ttft": [o.ttft * 1e3 for o in good],
        "tpot": [o.tpot * 1e3 for o in good if o.output_len > 1],
        "itl": [itl * 1e3 for o in good for itl in o.itls],
        "e2el": [o.latency * 1e3 for o in good],
    }
    figures: dict[str, Any] = {
        "duration": seconds,
        "completed": len(good),
        "failed": len(outcomes) - len(good),
        "total_input_tokens": num_in,
        "total_output_tokens": num_out,
        "request_throughput": len(good) / seconds,
        "request_goodput": sum(_meets(o, goals) for o in good) / seconds if goals else None,
        "output_throughput": num_out / seconds,
        "total_token_throughput": (num_in + num_out) / seconds,
        "max_output_tokens_per_s": _peak_tokens(good),
        "max_concurrent_requests": _peak_requests(good),
    }
    for name, values in series.items():
        figures[f"mean_{name}_ms"] = statistics.fmean(values) if values else 0.0
        figures[f"median_{name}_ms"] = percentile(values, 50)
        figures[f"std_{name}_ms"] = statistics.pstdev(values) if values else 0.0
        figures |= {f"p{percent:g}_{name}_ms": percentile(values, percent) for percent in percents}
    return figures


def table(figures: dict[str, Any], metrics: Sequence[str], percents: Sequence[float]) -> str:
    """The figures for a person, in the layout that vLLM's users know."""
    rows: list[tuple[str, Any]] = [
        ("Successful requests:", figures["completed"]),
        ("Failed requests:", figures["failed"]),
    ]
    if figures.get("max_concurrency") is not None:
        rows.append(("Maximum request concurrency:", figures["max_concurrency"]))
    if figures.get("request_rate") not in (None, "inf"):
        rows.append(("Request rate configured (RPS):", figures["request_rate"]))
    rows += [
        ("Benchmark duration (s):", figures["duration"]),
        ("Total input tokens:", figures["total_input_tokens"]),
        ("Total generated tokens:", figures["total_output_tokens"]),
        ("Request throughput (req/s):", figures["request_throughput"]),
    ]
    if figures["request_goodput"] is not None:
        rows.append(("Request goodput (req/s):", figures["request_goodput"]))
    rows += [
        ("Output token throughput (tok/s):", figures["output_throughput"]),
        ("Peak output token throughput (tok/s):", float(figures["max_output_tokens_per_s"])),
        ("Peak concurrent requests:", float(figures["max_concurrent_requests"])),
        ("Total token throughput (tok/s):", figures["total_token_throughput"]),
    ]
    lines = [f"{' Serving Benchmark Result ':=^50}", *(_row(*row) for row in rows)]
    for name in metrics:
        short, long = METRICS[name]
        lines.append(f"{long:-^50}")
        lines += [_row(f"{word} {short} (ms):", figures[f"{word.lower()}_{name}_ms"]) for word in ("Mean", "Median")]
        lines += [_row(f"P{p:g} {short} (ms):", figures[f"p{p:g}_{name}_ms"]) for p in percents]
    return "\n".join([*lines, "=" * 50])


def _row(words: str, value: Any) -> str:
    shown = f"{value:<10.2f}" if isinstance(value, float) else f"{value:<10}"
    return f"{words:<40} {shown}"


def _meets(outcome: Outcome, goals: dict[str, float]) -> bool:
    reached = {"ttft": outcome.ttft, "tpot": outcome.tpot, "e2el": outcome.latency}
    return all(reached[name] * 1e3 <= most for name, most in goals.items())


def _peak_tokens(good: Sequence[Outcome]) -> int:
    """Most pieces that came within one second, seconds counted from the first request."""
    began = min((o.began for o in good), default=0.0)
    return max(Counter(int(moment - began) for o in good for moment in o.moments).values(), default=0)


def _peak_requests(good: Sequence[Outcome]) -> int:
    """Most requests that were open at once."""
    open_now = most = 0
    for _, change in sorted([(o.began, 1) for o in good] + [(o.ended, -1) for o in good]):
        open_now += change
        most = max(most, open_now)
    return most
