"""`vllm plan`: what would run and in how many bytes, decided as for a real start, with nothing loaded.

Called by: entrypoints/cli/main.py.
"""

import argparse

NAMES = ("plan",)
HELP = "print what would run, in how many bytes, and why; loads nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and every knob of the engine."""
    from vllm.config.args import EngineArgs

    parser.add_argument("model_tag", nargs="?", metavar="MODEL", help="folder or hub id; default the built-in model")
    EngineArgs.add_cli_args(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the Plan."""
    from vllm.assembly import make_plan
    from vllm.config.args import EngineArgs

    if arguments.model_tag is not None:
        arguments.model = arguments.model_tag
    print(make_plan(EngineArgs.from_cli_args(arguments), weights=False)[2].text())
    return 0
