"""`vllm doctor`: what is wrong with this machine, and the command that mends it. Called by: entrypoints/cli/main.py."""

import argparse
import sys

from vllm.util import env

NAMES = ("doctor",)
HELP = "check this machine, say what mends it, and generate ten tokens on each device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which checks, and how to tell."""
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="run these checks only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the sentences")
    parser.add_argument("--no-generate", action="store_true", help="leave out the generation on each device")
    parser.add_argument("--port", type=int, default=8000, help="the port that a server would take")
    parser.add_argument("--limit", type=float, default=120.0, metavar="SECONDS", help="time limit of each trial")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; 0 ready, 1 something is red, 2 doctor itself failed."""
    from vllm.doctor import examine, report
    from vllm.doctor.machine import Machine

    if not arguments.limit > 0:
        raise ValueError(f"--limit={arguments.limit} is not a number of seconds above 0")
    if not 0 < arguments.port < 65536:
        raise ValueError(f"--port={arguments.port} is not within 1 to 65535")
    wanted = arguments.checks or examine.names()
    if arguments.no_generate:
        wanted = [name for name in wanted if name != "generate"]
    colour = sys.stdout.isatty() and env.text("NO_COLOR") is None
    findings = []
    for item in examine.examine(Machine(arguments.limit, arguments.port), wanted):
        findings.append(item)
        if not arguments.json:
            print(report.lines(item, arguments.lang, colour), flush=True)
    print(report.as_json(findings, arguments.lang) if arguments.json else report.end(findings, arguments.lang))
    return report.exit_status(findings)
