"""Draws the pictures of docs/tour.md as SVG from the rows below: `python -m tools.house drawings`.

Boxes, arrows and words only, so they are shown everywhere, also without a network; tests/house compares them.
"""

from dataclasses import dataclass
from html import escape

from tools.house.source import ROOT

FOLDER = ROOT / "docs" / "pictures"
_COLOURS = {"host": "#dbeafe", "device": "#dcfce7", "ground": "#f3f4f6", "top": "#fef3c7", "seam": "#fce7f3"}
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#111827}.small{font-size:11px;fill:#374151}"
    "rect{stroke:#6b7280}path{stroke:#374151;fill:none;marker-end:url(#a)}"
)


@dataclass(frozen=True)
class Box:
    """A box at (x, y), its name, a smaller line below it, and what it belongs to."""

    x: int
    y: int
    width: int
    height: int
    name: str
    small: str = ""
    kind: str = "ground"


@dataclass(frozen=True)
class Arrow:
    """A line from point to point; a word beside its middle."""

    start: tuple[int, int]
    end: tuple[int, int]
    word: str = ""
    both: bool = False


FLOORS = (
    700,
    372,
    (
        Box(10, 10, 680, 34, "entrypoints", "", "top"),
        Box(10, 50, 680, 34, "assembly: Args to Plan to processes", "", "top"),
        Box(10, 90, 680, 34, "executor: StepPlan down, StepResult up", "", "top"),
        Box(10, 138, 270, 138, "", "", "host"),
        Box(30, 166, 230, 28, "engine   planning", "", "host"),
        Box(30, 200, 230, 28, "scheduler   chat   formats", "", "host"),
        Box(30, 234, 230, 28, "kv   tokenizer", "", "host"),
        Box(290, 138, 120, 138, "features/", "host | device", "seam"),
        Box(420, 138, 270, 138, "", "", "device"),
        Box(440, 166, 230, 28, "worker   sampling   loading", "", "device"),
        Box(440, 200, 230, 28, "layers", "", "device"),
        Box(440, 234, 230, 28, "ops   parallel   platforms", "", "device"),
        Box(10, 290, 680, 34, "models, quantization, parts: descriptions that both towers read"),
        Box(10, 330, 680, 34, "config, protocol, sampling_params, inputs, outputs, errors, util"),
    ),
    (),
    ((145, 156, "HOST, without torch"), (555, 156, "DEVICE, torch")),
)

REQUEST = (
    760,
    330,
    (
        Box(10, 20, 200, 60, "1 route", "JSON; a bad field is a 400", "host"),
        Box(10, 95, 200, 60, "2 chat", "messages to a prompt", "host"),
        Box(10, 170, 200, 60, "3 intake", "tokens, limits, n sequences", "host"),
        Box(10, 255, 200, 60, "journal", "what was asked and answered", "host"),
        Box(280, 20, 200, 60, "4 engine loop", "drain, plan, hand over, settle", "host"),
        Box(280, 95, 200, 60, "5 scheduler + kv", "tokens and blocks: StepPlan", "host"),
        Box(280, 170, 200, 60, "6 executor", "the plan to every rank", "top"),
        Box(280, 255, 200, 60, "10 settle, deliver", "text, stops, stream", "host"),
        Box(550, 20, 200, 60, "7 worker", "rows, then a batch", "device"),
        Box(550, 95, 200, 60, "8 layers and ops", "the forward pass", "device"),
        Box(550, 170, 200, 60, "9 sampling", "logits to tokens: StepResult", "device"),
    ),
    (
        Arrow((110, 80), (110, 95)),
        Arrow((110, 155), (110, 170)),
        Arrow((210, 190), (280, 60)),
        Arrow((110, 230), (110, 255)),
        Arrow((380, 80), (380, 95)),
        Arrow((380, 155), (380, 170)),
        Arrow((480, 190), (550, 60)),
        Arrow((650, 80), (650, 95)),
        Arrow((650, 155), (650, 170)),
        Arrow((550, 215), (480, 275)),
        Arrow((280, 285), (210, 285), "tokens"),
    ),
    (),
)

AHEAD = (
    760,
    176,
    (
        Box(90, 20, 110, 40, "plan 1", "", "host"),
        Box(210, 20, 110, 40, "plan 2", "", "host"),
        Box(330, 20, 70, 40, "settle 1", "", "host"),
        Box(410, 20, 90, 40, "plan 3", "", "host"),
        Box(510, 20, 70, 40, "settle 2", "", "host"),
        Box(590, 20, 90, 40, "plan 4", "", "host"),
        Box(210, 96, 170, 40, "step 1", "", "device"),
        Box(380, 96, 170, 40, "step 2", "", "device"),
        Box(550, 96, 170, 40, "step 3", "", "device"),
    ),
    (
        Arrow((200, 60), (212, 96)),
        Arrow((320, 60), (382, 96)),
        Arrow((378, 96), (366, 60)),
        Arrow((500, 60), (552, 96)),
    ),
    (
        (44, 44, "host"),
        (44, 120, "device"),
        (380, 164, "the device never waits for the host: a step's tokens are settled while the next one runs"),
    ),
)

BLOCKS = (
    760,
    250,
    (
        Box(10, 40, 230, 34, "sequence A: 3, 7, 5", "", "host"),
        Box(10, 90, 230, 34, "sequence B: 3, 7, 9", "", "host"),
        Box(10, 140, 230, 34, "sequence C: 2, 6", "", "host"),
        *(
            Box(
                330 + 42 * i,
                90,
                40,
                40,
                str(i),
                "",
                {3: "seam", 7: "seam", 0: "ground"}.get(i, "device" if i in (2, 5, 6, 9) else "ground"),
            )
            for i in range(10)
        ),
    ),
    (Arrow((240, 57), (470, 90)), Arrow((240, 107), (330, 107))),
    (
        (125, 26, "block tables (host)"),
        (540, 78, "one pool of equal blocks (device)"),
        (540, 160, "3 and 7 hold the beginning that A and B share: counted twice, computed once"),
        (540, 182, "2, 5, 6, 9 belong to one sequence; 0 is the null block; the others are free"),
        (540, 204, "a block's name is the hash of its tokens, of all before them, and of the salt"),
        (540, 226, "what is free keeps its contents until somebody needs the room"),
    ),
)

DEATH = (
    760,
    210,
    (
        Box(10, 70, 130, 60, "client", "an open stream", "ground"),
        Box(230, 50, 200, 100, "front", "sockets, journal", "host"),
        Box(540, 20, 200, 60, "engine", "killed, or out of memory", "seam"),
        Box(540, 120, 200, 60, "engine, anew", "loads, then goes on", "device"),
    ),
    (
        Arrow((140, 100), (230, 100), "", True),
        Arrow((430, 75), (540, 50), "dies"),
        Arrow((430, 125), (540, 150), "journal"),
    ),
    ((380, 200, "what was sent stays sent; the rest is computed from prompt + tokens so far, with the same seeds"),),
)

PICTURES = {"floors": FLOORS, "request": REQUEST, "ahead": AHEAD, "blocks": BLOCKS, "death": DEATH}


def draw(name: str) -> str:
    """The picture of that name."""
    width, height, boxes, arrows, words = PICTURES[name]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<title>{name}</title><style>{_STYLE}</style>",
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto-start-reverse">'
        '<path d="M0,0 L8,4 L0,8 z" style="fill:#374151;stroke:none;marker-end:none"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="6" style="fill:#fff;stroke:none"/>',
    ]
    for b in boxes:
        lines.append(
            f'<rect x="{b.x}" y="{b.y}" width="{b.width}" height="{b.height}" rx="5" fill="{_COLOURS[b.kind]}"/>'
        )
        middle, at = b.x + b.width // 2, b.y + b.height // 2 + (-3 if b.small else 5)
        if b.name:
            lines.append(f'<text x="{middle}" y="{at}" text-anchor="middle">{escape(b.name)}</text>')
        if b.small:
            lines.append(
                f'<text x="{middle}" y="{at + 17}" text-anchor="middle" class="small">{escape(b.small)}</text>'
            )
    for a in arrows:
        back = ' style="marker-start:url(#a)"' if a.both else ""
        lines.append(f'<path d="M{a.start[0]},{a.start[1]} L{a.end[0]},{a.end[1]}"{back}/>')
        if a.word:
            x, y = (a.start[0] + a.end[0]) // 2, (a.start[1] + a.end[1]) // 2 - 6
            lines.append(f'<text x="{x}" y="{y}" text-anchor="middle" class="small">{escape(a.word)}</text>')
    lines += [f'<text x="{x}" y="{y}" text-anchor="middle" class="small">{escape(word)}</text>' for x, y, word in words]
    return "\n".join([*lines, "</svg>", ""])


def write() -> None:
    """Write all pictures."""
    for name in PICTURES:
        (FOLDER / f"tour-{name}.svg").write_text(draw(name), "utf-8")
