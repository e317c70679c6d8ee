"""The flags of a server, apart from the server: `vllm serve --help` needs nothing that listens.

Called by: entrypoints (cli/serve, cli/run_batch, openai/api_server).
"""

import argparse

from vllm.config.args import EngineArgs
from vllm.config.cli import add_section
from vllm.config.server import ServerArgs
from vllm.config.server_compat import add_server_others


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag of the server and of the engine."""
    add_section(parser, ServerArgs)
    EngineArgs.add_cli_args(parser)
    add_server_others(parser)
