"""`python -m benchmarks.speed`: draw docs/pictures/speed.svg from the ledger.

One bar for each row of the yardstick that was measured on an H200: how many times as fast as vLLM 0.25.1 the newest
line of `benchmarks/ledger.jsonl` is, and as a mark how fast the memory and the arithmetic of the card would allow.
A test compares the picture with the ledger, so it cannot tell an old story.
"""

import json
from html import escape
from pathlib import Path

from vllm.entrypoints.bench.recorded import VLLM

ROOT = Path(__file__).resolve().parents[1]
LEDGER, PICTURE = ROOT / "benchmarks/ledger.jsonl", ROOT / "docs/pictures/speed.svg"
FLOORS: dict[str, dict[str, float]] = {
    "Qwen3-0.6B": {"b1": 0.28},
    "Llama-3.1-8B": {"b1": 3.43, "b32": 4.5, "b128": 7.9, "b256": 12.3, "prefill": 51_000},
    "Llama-3.1-8B fp8": {"b1": 1.75, "b32": 2.7, "b128": 5.6, "prefill": 104_000},
    "Qwen3-30B-A3B": {"b1": 1.42, "b32": 12.9, "b128": 16.7, "prefill": 135_000},
}
"""Milliseconds of a step, else tokens a second: bytes over 4.375 TB/s or operations over 790 TFLOP/s."""
WORDS = {
    "b1": "decode, 1 request",
    "b32": "decode, 32 requests",
    "b128": "decode, 128 requests",
    "b256": "decode, 256 requests",
    "prefill": "prefill, 64 x 2,048 tokens",
    "mixed": "512 x (1,024 in, 128 out)",
    "small": "256 requests of 100 to 1,024",
    "sharegpt": "1,000 requests of chat lengths",
}
OTHER = {"deterministic", "kv_cache_dtype", "tensor_parallel_size"}
"""Lines with these were measured in another way than vLLM's."""
WIDE, LEFT, ROW, HEAD = 820, 240, 24, 30
LARGEST = 3.0
"""Times vLLM at the right edge; a limit beyond it is told in words."""
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2937 } .model { font-weight: 600 } .quiet { fill: #6b7280 }
.bar { fill: #2563eb } .peer { stroke: #9ca3af; stroke-dasharray: 3 3 } .limit { stroke: #dc2626; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e5e7eb } .quiet { fill: #9ca3af } .bar { fill: #3b82f6 } }
text.value { fill: #fff }
"""


def newest() -> dict[tuple[str, str], tuple[float, str]]:
    """(yardstick, case) -> the newest measurement (milliseconds of a step, else tokens a second), and a remark."""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for line in LEDGER.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("benchmark") != "engine" or "H200" not in row.get("machine", "") or OTHER & row.keys():
            continue
        method = row.get("quantization", "none")
        name, case = row["model"] if method == "none" else f"{row['model']} {method}", row["case"]
        if case not in VLLM.get(name, {}):
            continue
        value = row.get("step_ms") or row["tot_tok_s" if case in ("prefill", "mixed") else "out_tok_s"]
        is_short = "step_ms" in row and row.get("out", 256) < 256
        remark = f", over {row['out']} of 256 tokens" if is_short else ""
        found[name, case] = value, remark
    return found


def times(case: str, ours: float, theirs: float) -> float:
    """How many times as fast as `theirs`: steps are better short, rates are better large."""
    return theirs / ours if case[1:].isdigit() else ours / theirs


def draw() -> str:
    """The picture."""
    measured, parts, y = newest(), [], 52
    scale = (WIDE - LEFT - 20) / LARGEST
    for name, cases in VLLM.items():
        parts.append(f'<text class="model" x="12" y="{y + 16}">{escape(name)}</text>')
        y += HEAD
        for case, theirs in cases.items():
            if (name, case) not in measured:
                continue
            value, remark = measured[name, case]
            ours, limit = times(case, value, theirs), FLOORS[name].get(case)
            end = LEFT + ours * scale
            parts.append(f'<text x="24" y="{y + 14}">{escape(WORDS[case])}</text>')
            parts.append(f'<rect class="bar" x="{LEFT}" y="{y + 2}" width="{end - LEFT:.1f}" height="16" rx="2"/>')
            most = times(case, limit, theirs) if limit else 0.0
            if most > LARGEST:
                remark += f"; the card would allow {most:.1f} x"
            parts.append(f'<text class="value" x="{LEFT + 8}" y="{y + 15}">{ours:.2f} x{remark}</text>')
            if 0 < most <= LARGEST:
                x = LEFT + most * scale
                parts.append(f'<line class="limit" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 20}"/>')
            y += ROW
        y += 8
    one = LEFT + scale
    head = [
        '<text class="quiet" x="12" y="20">Times as fast as vLLM 0.25.1 on one H200. Dashed: vLLM. Red: '
        "what the card's memory and arithmetic would allow.</text>",
        f'<line class="peer" x1="{one:.1f}" y1="40" x2="{one:.1f}" y2="{y}"/>',
    ]
    size = f'width="{WIDE}" height="{y + 8}" viewBox="0 0 {WIDE} {y + 8}"'
    title = "<title>Speed against vLLM 0.25.1 on one H200</title>"
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{title}<style>{STYLE}</style>', *parts, *head, "</svg>\n"]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
