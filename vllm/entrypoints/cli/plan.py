"""`vllm plan`: what would run and in how many bytes, decided as for a real start, with nothing loaded.

With --ops also the kernel of each op: kernels say in torch's words where they run, so only then torch is imported.

Called by: entrypoints/cli/main.py.
"""

import argparse

NAMES = ("plan",)
HELP = "print what would run, in how many bytes, and why; loads nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and every knob of the engine."""
    from vllm.config.args import EngineArgs

    parser.add_argument("model_tag", nargs="?", metavar="MODEL", help="folder or hub id; default the built-in model")
    parser.add_argument("--ops", action="store_true", help="also print the kernel that each operation would run")
    EngineArgs.add_cli_args(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the Plan."""
    from vllm.assembly import make_plan
    from vllm.config.args import EngineArgs

    if arguments.model_tag is not None:
        arguments.model = arguments.model_tag
    _, described, plan = make_plan(EngineArgs.from_cli_args(arguments), weights=False)
    print(plan.text())
    if arguments.ops:
        from vllm.worker.kernels import table

        print(table(described.decoder, plan.worker, plan.kv))
    return 0
