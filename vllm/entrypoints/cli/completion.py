"""`vllm completion SHELL`: the script by which a shell completes. Called by: entrypoints/cli/main.py.

vllm completion bash > ~/.local/share/bash-completion/completions/vllm
vllm completion zsh  > ~/.zfunc/_vllm
"""

import argparse

from vllm.config.cli import FlexibleArgumentParser
from vllm.util.catalog import Catalogue

NAMES = ("completion",)
HELP = "print the script that completes this command in bash, zsh or tcsh"
SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read it")


def run(arguments: argparse.Namespace) -> int:
    """Print the script; it holds every verb and flag of this version."""
    import shtab

    verbs = Catalogue("vllm.entrypoints.cli", "command")
    parser = FlexibleArgumentParser(prog="vllm")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    for name in verbs.names():
        verb = verbs.load(name)
        verb.add_arguments(subparsers.add_parser(name, help=verb.HELP))
    print(shtab.complete(parser, arguments.shell))
    return 0
