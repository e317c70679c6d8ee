"""`vllm run-batch`: answer a file of requests. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("run-batch",)
HELP = "answer a file of requests in OpenAI's batch format; goes on where it was stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, and every flag of the server and the engine."""
    from vllm.config.server_flags import add_server_arguments

    parser.add_argument("-i", "--input-file", required=True, help="JSON lines: custom_id, method, url, body")
    parser.add_argument("-o", "--output-file", required=True, help="where answers go, each as soon as it is there")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever the output file holds")
    parser.add_argument("--max-concurrency", type=int, default=256, help="most requests at once (default: %(default)s)")
    add_server_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer what is not answered yet."""
    from vllm.entrypoints.openai import batch

    return batch.run(arguments)
