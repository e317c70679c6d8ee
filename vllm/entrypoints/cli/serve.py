"""`vllm serve`: the OpenAI-compatible server. Called by: entrypoints/cli/main.py."""

import argparse

NAMES = ("serve",)
HELP = "serve a model over HTTP, with OpenAI's API"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and every flag of the server and the engine."""
    from vllm.config.server_flags import add_server_arguments

    parser.add_argument("model_tag", nargs="?", metavar="MODEL", help="folder or hub id; default the built-in model")
    add_server_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal."""
    from vllm.entrypoints.openai import api_server

    if arguments.model_tag is not None:
        arguments.model = arguments.model_tag
    return api_server.run(arguments)
