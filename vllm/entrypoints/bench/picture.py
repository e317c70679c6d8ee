"""A picture of the rows: one bar for what was measured, one for vLLM, and the floor as a line; as SVG or PNG.

    rows ─▶ boxes and words ─┬─▶ svg
                             └─▶ png   by Pillow, which is an extra

Does not know: how rows were made. Called by: engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from vllm.errors import ValidationError

KINDS = (".svg", ".png")
WIDE, LEFT, ROW, TOP = 760, 120, 46, 64
_INK, _OURS, _THEIRS, _FLOOR = "#1f2937", "#2563eb", "#9ca3af", "#dc2626"
_LARGER = 2
"""Pixels of a PNG per unit, for screens of today."""


class Box(NamedTuple):
    """A filled rectangle."""

    x: float
    y: float
    wide: float
    high: float
    colour: str


class Words(NamedTuple):
    """A line of text whose letters stand on y."""

    x: float
    y: float
    text: str
    size: int = 13


Shapes = list[Box | Words]


def check(file: str) -> None:
    """ValidationError where a picture of that name cannot be drawn: known before hours of measuring, not after."""
    if not file.endswith(KINDS):
        raise ValidationError.of("picture", file, f"a file that ends in {' or '.join(KINDS)}")
    if file.endswith(".png"):
        try:
            import PIL  # noqa: F401
        except ImportError:
            raise ValidationError(
                f"picture {file!r} needs Pillow: pip install pillow, or name a file that ends in .svg",
                field="picture", value=file,
            ) from None  # fmt: skip


def draw(file: str, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Each row has case, value, unit, and perhaps floor and vllm in the same unit; bars are scaled row by row."""
    high = TOP + ROW * len(rows) + 12
    shapes = [Box(0, 0, WIDE, high, "#ffffff"), Words(12, 24, title, 16)]
    for x, colour, words in ((12, _OURS, "measured"), (112, _THEIRS, "vLLM 0.25.1"), (232, _FLOOR, "floor")):
        shapes += [Box(x, 36, 10, 10, colour), Words(x + 16, 45, words)]
    for i, row in enumerate(rows):
        shapes += _row(TOP + ROW * i, row)
    if file.endswith(".png"):
        _png(file, shapes, high)
    else:
        Path(file).write_text(_svg(shapes, high), encoding="utf-8")


def _row(y: int, row: dict[str, Any]) -> Shapes:
    numbers = [row[name] for name in ("value", "vllm", "floor") if row.get(name) is not None]
    long = WIDE - LEFT - 150
    scale = long / max(numbers)
    shapes: Shapes = [Words(12, y + 20, row["case"])]
    for top, name, colour, unit in ((y + 4, "value", _OURS, f" {row['unit']}"), (y + 20, "vllm", _THEIRS, "")):
        if row.get(name) is not None:
            shapes.append(Box(LEFT, top, max(1.0, row[name] * scale), 14, colour))
            shapes.append(Words(LEFT + long + 8, top + 11, _number(row[name]) + unit))
    if row.get("floor") is not None:
        shapes.append(Box(LEFT + row["floor"] * scale - 1, y, 2, 36, _FLOOR))
    return shapes


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _svg(shapes: Shapes, high: int) -> str:
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{high}" viewBox="0 0 {WIDE} {high}">']
    for one in shapes:
        if isinstance(one, Box):
            place = f'x="{one.x:.1f}" y="{one.y:.1f}" width="{one.wide:.1f}" height="{one.high:.1f}"'
            parts.append(f'<rect {place} fill="{one.colour}"/>')
        else:
            place = f'x="{one.x:.1f}" y="{one.y:.1f}" font-family="sans-serif" font-size="{one.size}"'
            parts.append(f'<text {place} fill="{_INK}">{escape(one.text)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _png(file: str, shapes: Shapes, high: int) -> None:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (WIDE * _LARGER, high * _LARGER))
    pen = ImageDraw.Draw(picture)
    for one in shapes:
        if isinstance(one, Box):
            corners = (one.x, one.y, one.x + one.wide, one.y + one.high)
            left, top, right, bottom = (round(c * _LARGER) for c in corners)
            pen.rectangle((left, top, right - 1, bottom - 1), fill=one.colour)
        else:
            font = ImageFont.load_default(one.size * _LARGER)
            pen.text((one.x * _LARGER, one.y * _LARGER), one.text, fill=_INK, font=font, anchor="ls")
    picture.save(file)
