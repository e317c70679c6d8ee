"""`vllm bench`: measure an engine or a running server; one measurement per file of entrypoints/bench.

A file there has NAMES, HELP, add_arguments(parser) and run(arguments) -> exit status, as a command has.
Called by: entrypoints/cli/main.py.
"""

import argparse

NAMES = ("bench",)
HELP = "measure: latency, throughput, startup, serve (any OpenAI server under load), engine (the yardstick's cases)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A command for each measurement."""
    from vllm.util.catalog import Catalogue

    measurements = Catalogue("vllm.entrypoints.bench", "measurement")
    subparsers = parser.add_subparsers(metavar="MEASUREMENT", required=True)
    for name in measurements.names():
        module = measurements.load(name)
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(subparser)
        subparser.set_defaults(measure=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Measure what was asked."""
    status: int = arguments.measure(arguments)
    return status
