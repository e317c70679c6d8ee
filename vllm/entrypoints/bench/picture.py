"""A picture of the rows: an SVG with one bar for what was measured, one for vLLM, and the floor as a line.

Does not know: how rows were made. Called by: engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDE, LEFT, ROW, TOP = 760, 120, 46, 64
_INK, _OURS, _THEIRS, _FLOOR = "#1f2937", "#2563eb", "#9ca3af", "#dc2626"


def svg(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Each row has case, value, unit, and perhaps floor and vllm in the same unit; bars are scaled row by row."""
    high = TOP + ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{high}" viewBox="0 0 {WIDE} {high}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDE}" height="{high}" fill="#ffffff"/>',
        _text(12, 24, title, 'font-size="16"'),
        *(f'<rect x="{x}" y="36" width="10" height="10" fill="{colour}"/>' + _text(x + 16, 45, words)
          for x, colour, words in ((12, _OURS, "measured"), (112, _THEIRS, "vLLM 0.25.1"), (232, _FLOOR, "floor"))),
    ]  # fmt: skip
    for i, row in enumerate(rows):
        parts += _row(TOP + ROW * i, row)
    return "\n".join([*parts, "</svg>\n"])


def _row(y: int, row: dict[str, Any]) -> list[str]:
    numbers = [row[name] for name in ("value", "vllm", "floor") if row.get(name) is not None]
    scale = (WIDE - LEFT - 150) / max(numbers)
    parts = [_text(12, y + 20, row["case"]), _bar(y + 4, row["value"] * scale, _OURS)]
    parts.append(_text(LEFT + row["value"] * scale + 6, y + 15, f"{row['value']:,.4g} {row['unit']}"))
    if row.get("vllm") is not None:
        parts.append(_bar(y + 20, row["vllm"] * scale, _THEIRS))
        parts.append(_text(LEFT + row["vllm"] * scale + 6, y + 31, f"{row['vllm']:,.4g}"))
    if row.get("floor") is not None:
        x = LEFT + row["floor"] * scale
        parts.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 36}" stroke="{_FLOOR}" stroke-width="2"/>')
    return parts


def _bar(y: int, wide: float, colour: str) -> str:
    return f'<rect x="{LEFT}" y="{y}" width="{max(1.0, wide):.1f}" height="14" fill="{colour}"/>'


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="{_INK}" {more}>{escape(words)}</text>'
