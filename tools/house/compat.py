"""Writes docs/compatibility.md from the knobs and the tables of other flags: `python -m tools.house compat`.

What the command line does and what the page says can so never differ; tests/house compares them.
"""

from tools.house.source import ROOT
from vllm.config import compat, server_compat
from vllm.config.args import EngineArgs
from vllm.config.knob import Knob, knobs_of
from vllm.config.server import ServerArgs

FILE = ROOT / "docs" / "compatibility.md"
_HEAD = """# vLLM's flags and keywords here

Made from the tables of the command line; do not edit. Each flag of vLLM is one of three:

- **have**: it works. As a keyword of `LLM(...)`, write `_` for `-` and leave out the leading `--`.
- **ignored**: it only tunes speed or logging. It is accepted, and named in one line of the log.
- **refused**: silence would change answers, limits or security. A value that asks for something is an error that says
  why; the value that vLLM takes by default is accepted.

Any other flag is an error that names the nearest known one.

"""


def page() -> str:
    """The whole page."""
    have = {**knobs_of(ServerArgs), **knobs_of(EngineArgs)}
    ignored = {name: other.why for name, other in compat.OTHERS.items() if not other.is_refused}
    refused = {name: other.why for name, other in compat.OTHERS.items() if other.is_refused}
    ignored |= {name: why for name, (why, _) in server_compat.IGNORED.items() if name not in have}
    refused |= {name: why for name, (why, _) in server_compat.REFUSED.items() if name not in have}
    parts = [
        _HEAD,
        f"{len(have)} have, {len(ignored)} ignored, {len(refused)} refused.\n",
        _table("Have", "What it does", {name: _meaning(knob) for name, knob in have.items()}),
        _table("Ignored", "Why", ignored),
        _table("Refused", "Why", refused),
    ]
    return "\n".join(parts)


def _meaning(knob: Knob) -> str:
    short = f" (`-{knob.short}`)" if knob.short else ""
    choices = f": {', '.join(knob.choices)}" if knob.choices else ""
    return f"{knob.help}{choices}{short}"


def _table(title: str, second: str, rows: dict[str, str]) -> str:
    lines = [f"## {title}", f"| Flag | {second} |", "|---|---|"]
    for name, text in sorted(rows.items()):
        lines.append(f"| `--{name.replace('_', '-')}` | {text.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write the page."""
    FILE.write_text(page(), "utf-8")
